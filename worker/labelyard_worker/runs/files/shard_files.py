"""Interface of a shard's output files, which take one result after the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeAlias

from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.summaries import ShardSummary
from labelyard_worker.vision.scoring import Floats

if TYPE_CHECKING:
    from labelyard_worker.runs.files.scored_batches import ScoredBatch

FileForm: TypeAlias = Literal["jsonl", "parquet"]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One whole file of a shard, at its first byte; closing ``body`` frees it.

    Attributes:
        name: Name below the run's prefix, for example ``results-00017.jsonl``.
        body: The bytes, in memory or in a temporary file.
        size_bytes: Number of bytes.
        content_type: Media type.
    """

    name: str
    body: BinaryIO
    size_bytes: int
    content_type: str


class ShardFiles(Protocol):
    """Files of one shard; the same calls give the same bytes."""

    def add(self, result: ResultLine, embedding: Floats | None = None) -> None:
        """Add the result of an image, failed ones included; in the order of the lines.

        Args:
            embedding: Unit-length vector of a succeeded image, if embeddings are written.
        """

    def add_scored(self, batch: "ScoredBatch") -> None:
        """Add images that succeeded, many at once."""

    def add_error(self, error: ErrorLine) -> None:
        """Add a manifest line that names no image."""

    def finish(self) -> list[OutputFile]:
        """Return the files: results and errors, even if there are none; embeddings, if there are."""

    def summary(self, *, seconds: float) -> ShardSummary:
        """Summarise the lines that were added."""

    def close(self) -> None:
        """Free memory and temporary files."""
