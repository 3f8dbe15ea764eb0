"""Objects in storage that calls of both clients write and read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from labelyard.evaluation.example_store import read_example_digests, store_examples
from labelyard.explanation_maps import read_map
from labelyard.messages import LabelSet
from labelyard.settings import ClientSettings
from labelyard.uploads import upload_files


class ObjectCalls:
    """Steps of both clients that use object storage; they block, so asyncio runs them in threads."""

    settings: ClientSettings

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload local files, and return the address of each."""
        return dict(zip(files, upload_files(files, self.settings), strict=True)) if files else {}

    def _store_examples(self, body: bytes) -> None:
        """Write the object with the examples."""
        store_examples(body, self.settings)

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set."""
        return read_example_digests(label_set, self.settings)

    def _read_map(self, uri: str) -> bytes:
        """Read the object of an explanation's map."""
        return read_map(uri, self.settings)
