"""Output files of one shard: results, errors, embeddings, and the counts of its summary."""

from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np

from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.summaries import ShardSummary
from labelyard_worker.runs.files.jsonl_writer import JsonlWriter
from labelyard_worker.runs.files.shard_counts import ShardCounts
from labelyard_worker.runs.files.shard_files import FileForm, OutputFile
from labelyard_worker.vision.scoring import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from labelyard_worker.runs.files.parquet_tables import ParquetWriter
    from labelyard_worker.runs.files.scored_batches import ScoredBatch

JSONL_TYPE: Final = "application/jsonl"
PARQUET_TYPE: Final = "application/vnd.apache.parquet"
# Embeddings that are held before they are written: 2 MB of 512 numbers each.
EMBEDDINGS_AT_ONCE: Final = 2_048


class ShardOutput:
    """Files of one shard; see ``ShardFiles``. Used by one thread."""

    def __init__(
        self, name: str, *, form: FileForm, has_embeddings: bool = False, has_titles: bool = False
    ) -> None:
        """Begin the files.

        Args:
            name: Number of the shard as in the files' names.
            form: Form of the results.
            has_embeddings: Whether embeddings are written, in Parquet.
            has_titles: Whether results in Parquet have a column for texts beside pictures.
        """
        self._name = name
        self._counts = ShardCounts()
        self._errors = JsonlWriter()
        self._results: JsonlWriter | ParquetResults
        is_parquet = form == "parquet"
        self._results = ParquetResults(has_titles=has_titles) if is_parquet else JsonlWriter()
        self._embeddings = EmbeddingsFile() if has_embeddings else None

    def add(self, result: ResultLine, embedding: Floats | None = None) -> None:
        """Add the result of an image; see ``ShardFiles.add``."""
        self._results.add(result)
        self._counts.add(result)
        if (error := result.to_error_line()) is not None:
            self._errors.add(error)
        elif self._embeddings is not None and embedding is not None:
            self._embeddings.add(result, embedding)

    def add_scored(self, batch: "ScoredBatch") -> None:
        """Add images that succeeded, many at once."""
        if isinstance(self._results, JsonlWriter):
            self._results.add_text(batch.to_json_lines())
        else:
            self._results.add_batch(batch.to_table())
        batch.count(self._counts)

    def add_error(self, error: ErrorLine) -> None:
        """Add a manifest line that names no image."""
        self._errors.add(error)
        self._counts.add_error(error)

    def finish(self) -> list[OutputFile]:
        """Return the files; see ``ShardFiles.finish``."""
        is_jsonl = isinstance(self._results, JsonlWriter)
        form, media_type = ("jsonl", JSONL_TYPE) if is_jsonl else ("parquet", PARQUET_TYPE)
        files = [
            _file_of(f"results-{self._name}.{form}", self._results.finish(), media_type),
            _file_of(f"errors-{self._name}.jsonl", self._errors.finish(), JSONL_TYPE),
        ]
        if self._embeddings is not None and (body := self._embeddings.finish()) is not None:
            files.append(_file_of(f"embeddings-{self._name}.parquet", body, PARQUET_TYPE))
        return files

    def summary(self, *, seconds: float) -> ShardSummary:
        """Summarise the lines that were added."""
        return self._counts.summary(self._name, seconds=seconds)

    def close(self) -> None:
        """Free memory and temporary files."""
        self._results.close()
        self._errors.close()
        if self._embeddings is not None:
            self._embeddings.close()


class ParquetResults:
    """Results in Parquet; holds the rows of one row group."""

    def __init__(self, *, has_titles: bool = False) -> None:
        """Begin an empty file; with *has_titles* it has a column for texts beside pictures."""
        from labelyard_worker.runs.files import parquet_tables

        self._tables = parquet_tables
        self._schema = parquet_tables.results_schema(has_titles=has_titles)
        self._writer = parquet_tables.ParquetWriter(self._schema)
        self._rows: list[dict[str, Any]] = []
        self._scored_labels = 0

    def add(self, result: ResultLine) -> None:
        """Add a row."""
        self._rows.append(self._tables.to_row(result))
        self._scored_labels += len(result.labels)
        is_full = len(self._rows) == self._tables.GROUP_ROWS
        if is_full or self._scored_labels >= self._tables.GROUP_LABELS:
            self._flush()

    def add_batch(self, batch: "pa.RecordBatch") -> None:
        """Add rows of the columns of results, as a row group."""
        self._flush()
        self._writer.add(batch)

    def finish(self) -> "IO[bytes]":
        """Return the whole file, at its first byte."""
        self._flush()
        return self._writer.finish()

    def close(self) -> None:
        """Free memory and file."""
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.add(self._tables.to_results(self._rows, self._schema))
            self._rows, self._scored_labels = [], 0


class EmbeddingsFile:
    """Embeddings of images in Parquet, half as exact as float32 and half as large."""

    def __init__(self) -> None:
        """Begin without a file: its columns depend on the first embedding."""
        from labelyard_worker.runs.files import parquet_tables

        self._tables = parquet_tables
        self._writer: ParquetWriter | None = None
        self._results: list[ResultLine] = []
        self._embeds: list[Any] = []

    def add(self, result: ResultLine, embedding: Floats) -> None:
        """Add the embedding of an image."""
        self._results.append(result)
        self._embeds.append(embedding.astype(np.float16))
        if len(self._results) == EMBEDDINGS_AT_ONCE:
            self._flush()

    def finish(self) -> "IO[bytes] | None":
        """Return the whole file; ``None`` if no image has an embedding."""
        self._flush()
        return None if self._writer is None else self._writer.finish()

    def close(self) -> None:
        """Free memory and file."""
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._results:
            return
        batch = self._tables.to_embeddings(self._results, np.stack(self._embeds))
        if self._writer is None:
            self._writer = self._tables.ParquetWriter(batch.schema)
        self._writer.add(batch)
        self._results, self._embeds = [], []


def _file_of(name: str, body: "IO[bytes]", media_type: str) -> OutputFile:
    size_bytes = body.seek(0, 2)
    body.seek(0)
    return OutputFile(name, cast("BinaryIO", body), size_bytes, media_type)
