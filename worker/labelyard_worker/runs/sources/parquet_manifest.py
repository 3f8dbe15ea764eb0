"""Entries of a manifest in Parquet, some thousand rows at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from labelyard_worker.runs.sources.entries import EntryBlock
from labelyard_worker.runs.sources.line_checks import (
    CUSTOM_ID,
    LABEL_SET,
    LABELS,
    OWN_FIELDS,
    TEXT,
    URI,
    CarriedColumns,
)
from labelyard_worker.runs.sources.plan_parts import RunSourceError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE: Final = 4_096
# Bytes of a column's pages that are read at once, so that a large row group is not.
READ_BYTES: Final = 1024 * 1024


def read_parquet(file: BinaryIO, *, columns: CarriedColumns = "none") -> Iterator[EntryBlock]:
    """Read the rows of a manifest, and of its columns only those that are needed.

    Ids that are whole numbers are read as text.

    Args:
        file: Seekable; read in pieces.

    Raises:
        RunSourceError: The file is not Parquet, or is damaged, or has not both columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        with pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as manifest:
            names = _needed(manifest.schema_arrow, columns)
            for batch in manifest.iter_batches(ROWS_AT_ONCE, columns=names, use_threads=False):
                yield EntryBlock(range(first, first + batch.num_rows), _rows(batch))
                first += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error.__cause__, RunSourceError):
            raise error.__cause__ from None
        raise RunSourceError(f"the Parquet file cannot be read: {type(error).__name__}") from error


def _needed(schema: "pa.Schema", columns: CarriedColumns) -> list[str]:
    names: list[str] = list(schema.names)
    if len(set(names)) < len(names) or not {CUSTOM_ID, URI} <= set(names):
        raise RunSourceError(
            f"the Parquet file must have the columns {CUSTOM_ID} and {URI}, and none twice"
        )
    if columns == "all":
        return names
    wanted = OWN_FIELDS | {TEXT} | (frozenset() if columns == "none" else columns)
    return [name for name in names if name in wanted]


def _rows(batch: "pa.RecordBatch") -> list[dict[str, Any]]:
    """Return the rows of a batch; cells without a value are left out of the labels."""
    import pyarrow as pa

    place = batch.schema.get_field_index(CUSTOM_ID)
    if pa.types.is_integer(batch.schema.field(place).type):
        batch = batch.set_column(place, CUSTOM_ID, batch.column(place).cast(pa.string()))
    rows: list[dict[str, Any]] = batch.to_pylist()
    if LABELS in batch.schema.names or LABEL_SET in batch.schema.names:
        for row in rows:
            for name in (LABELS, LABEL_SET):
                if row.get(name) is None:
                    row.pop(name, None)
    return rows
