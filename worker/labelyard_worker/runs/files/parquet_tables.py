"""Columns of the Parquet files of a run, and a writer whose bytes depend on the rows alone."""

from collections.abc import Sequence
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic_core import to_json

from labelyard.runs.lines import ResultLine
from labelyard_worker.runs.files.jsonl_writer import open_file

#: Rows of a row group, and scored labels: a reader holds one group in memory.
GROUP_ROWS: Final = 4_096
GROUP_LABELS: Final = 100_000

SCORED_LABEL: Final = pa.struct([("name", pa.string()), ("score", pa.float64())])
SCORED_NODE: Final = pa.struct([("path", pa.list_(pa.string())), ("score", pa.float64())])
LINE_ERROR: Final = pa.struct(
    [("code", pa.string()), ("message", pa.string()), ("is_retryable", pa.bool_())]
)
#: The fields of a result line; other columns of the manifest as one JSON object.
RESULTS: Final = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("custom_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("top_label", pa.string()),
        ("top_score", pa.float64()),
        ("matched", pa.list_(pa.string())),
        ("abstained", pa.bool_()),
        ("labels", pa.list_(SCORED_LABEL)),
        ("label_set", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("size_bytes", pa.int64()),
        ("error", LINE_ERROR),
        ("columns", pa.string()),
        ("fit", pa.float64()),
        ("abstained_because", pa.string()),
        ("parents", pa.list_(SCORED_NODE)),
        ("node", SCORED_NODE),
    ]
)
#: The last field, if the run's label set reads texts.
TITLE: Final = pa.field(
    "title",
    pa.struct(
        [
            ("label", pa.string()),
            ("score", pa.float64()),
            ("agreement", pa.float64()),
            ("agrees", pa.bool_()),
        ]
    ),
)
#: Fields of a result line that do not depend on labels: a file of embeddings has them, too.
FACTS: Final = (
    "line",
    "custom_id",
    "uri",
    "sha256",
    "width",
    "height",
    "size_bytes",
    "columns",
)
EMBEDDING: Final = "embedding"
_NUMBERS: Final = f"{EMBEDDING}.list.element"


def embeddings_schema(dim: int) -> pa.Schema:
    """Return the columns of a file of embeddings of *dim* numbers."""
    facts = [RESULTS.field(name) for name in FACTS]
    # Numbers that cannot be missing are read twice as fast.
    numbers = pa.list_(pa.field("element", pa.float16(), nullable=False), dim)
    return pa.schema([*facts, pa.field(EMBEDDING, numbers, nullable=False)])


def is_embeddings(schema: pa.Schema) -> bool:
    """Return whether a file has the columns of embeddings."""
    if EMBEDDING not in schema.names:
        return False
    kind = schema.field(EMBEDDING).type
    is_list: bool = pa.types.is_fixed_size_list(kind)
    return is_list and bool(schema.equals(embeddings_schema(kind.list_size)))


def to_row(result: ResultLine) -> dict[str, Any]:
    """Return a result line as a row of a table."""
    return result.model_dump() | {"columns": to_json(result.columns).decode()}


def results_schema(*, has_titles: bool) -> pa.Schema:
    """Return the columns of results; with that of texts beside pictures if it is wanted."""
    return RESULTS.append(TITLE) if has_titles else RESULTS


def to_results(rows: Sequence[dict[str, Any]], schema: pa.Schema = RESULTS) -> pa.RecordBatch:
    """Return rows of results as a batch."""
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def to_embeddings(results: Sequence[ResultLine], embeds: NDArray[np.float16]) -> pa.RecordBatch:
    """Return images and their embeddings as a batch.

    Args:
        embeds: Shape (images, dim).
    """
    dim = embeds.shape[1]
    rows = [result.model_dump(include=set(FACTS)) for result in results]
    for row, result in zip(rows, results, strict=True):
        row["columns"] = to_json(result.columns).decode()
    schema = embeddings_schema(dim)
    facts = pa.RecordBatch.from_pylist(rows, schema=schema.remove(len(FACTS)))
    numbers = pa.FixedSizeListArray.from_arrays(
        pa.array(embeds.reshape(-1), pa.float16()), type=schema.field(EMBEDDING).type
    )
    return pa.RecordBatch.from_arrays([*facts.columns, numbers], schema=schema)


class ParquetWriter:
    """Writes batches to a file, each of them a row group."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin a file without rows."""
        self.file = open_file()
        has_embeddings = EMBEDDING in schema.names
        facts = [name for name in schema.names if name != EMBEDDING]
        self._writer = pq.ParquetWriter(
            self.file,
            schema,
            # Nothing compresses numbers of embeddings, or finds equal ones among them.
            compression={_NUMBERS: "none"} | dict.fromkeys(facts, "zstd")
            if has_embeddings
            else "zstd",
            use_dictionary=facts if has_embeddings else True,
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Write a row group."""
        self._writer.write_batch(batch, row_group_size=max(1, batch.num_rows))

    def finish(self) -> "IO[bytes]":
        """Return the whole file, at its first byte."""
        self._writer.close()
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        """Free the file."""
        self._writer.close()
        self.file.close()
