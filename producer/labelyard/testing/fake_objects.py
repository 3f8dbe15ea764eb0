"""Object storage of clients without servers: files and pictures get addresses, examples are kept."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from labelyard.evaluation.object_calls import ObjectCalls
from labelyard.messages import LabelSet
from labelyard.testing.samples import SAMPLE_MAP


class FakeObjects(ObjectCalls):
    """Steps of both fake clients that would use object storage."""

    _examples: dict[str, bytes]

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload nothing; a file gets an address of its name."""
        return {file: f"s3://{self.settings.upload_bucket}/{file.name}" for file in files}

    def _read_map(self, uri: str) -> bytes:  # noqa: ARG002 - as of the client
        """Return a picture of one pixel."""
        return SAMPLE_MAP

    def _store_examples(self, body: bytes) -> None:
        """Keep the object with the examples in memory."""
        self._examples[hashlib.sha256(body).hexdigest()] = body

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set of these clients."""
        from labelyard.evaluation.example_file import ExampleFile

        examples = None if label_set.learned is None else label_set.learned.examples
        if examples is None:
            return frozenset()
        return frozenset(ExampleFile.from_bytes(self._examples[examples.sha256]).sha256)
