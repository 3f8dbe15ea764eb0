"""Objects in storage that calls of both clients write and read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labelyard.evaluation.example_store import read_example_digests, store_examples
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.scoring_run import ScoringRun
from labelyard.explanation_maps import read_map
from labelyard.messages import LabelSet
from labelyard.runs.request import RunRequest
from labelyard.settings import ClientSettings
from labelyard.uploads import upload_files

if TYPE_CHECKING:
    from labelyard.evaluation.scoring_calls import Prepared


class ObjectCalls:
    """Steps of both clients that use object storage; they block, so asyncio runs them in threads."""

    settings: ClientSettings

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload local files, and return the address of each."""
        return dict(zip(files, upload_files(files, self.settings), strict=True)) if files else {}

    def _prepare_run(
        self, prepared: "Prepared[Scoring]", out: str
    ) -> tuple[ScoringRun, RunRequest]:
        """Upload the pictures of a manifest, and the manifest of the run that scores them."""
        run = ScoringRun(prepared.scoring(self._upload(prepared.files)), out, self.settings)
        with run.manifest_file() as path:
            return run, run.request(self._upload([path])[path])

    def _store_examples(self, body: bytes) -> None:
        """Write the object with the examples."""
        store_examples(body, self.settings)

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set."""
        return read_example_digests(label_set, self.settings)

    def _read_map(self, uri: str) -> bytes:
        """Read the object of an explanation's map."""
        return read_map(uri, self.settings)
