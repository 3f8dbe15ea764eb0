"""Result and error lines of a run, read from JSONL and Parquet one after the other."""

from collections.abc import Iterator
from typing import IO, Any

from pydantic import ValidationError

from labelyard.errors import ServiceConfigError
from labelyard.messages import ScoredLabel
from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.report.output_files import lines_of

_ROWS = 2048


def read_results(stream: IO[bytes], *, name: str) -> Iterator[ResultLine | None]:
    """Read result lines; ``None`` stands for a line that is not one.

    Args:
        name: Name of the file; ``.parquet`` is read with pyarrow.

    Raises:
        ServiceConfigError: pyarrow is needed and not installed.
    """
    if name.endswith(".parquet"):
        yield from _parquet_lines(stream)
        return
    for line in lines_of(stream):
        try:
            yield None if line is None else ResultLine.model_validate_json(line)
        except ValidationError:
            yield None


def read_errors(stream: IO[bytes]) -> Iterator[ErrorLine | None]:
    """Read error lines; ``None`` stands for a line that is not one."""
    for line in lines_of(stream):
        try:
            yield None if line is None else ErrorLine.model_validate_json(line)
        except ValidationError:
            yield None


def best_of(line: ResultLine) -> ScoredLabel | None:
    """Return the label that a picture is taken for; ``None`` if it failed or is abstained."""
    return line.labels[0] if line.labels and not line.abstained else None


def _parquet_lines(stream: IO[bytes]) -> Iterator[ResultLine | None]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ServiceConfigError(
            "results in Parquet need pyarrow: pip install 'labelyard[report]'"
        ) from error
    try:
        with ParquetFile(stream) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from map(_from_row, batch.to_pylist())
    except (ArrowException, OSError, ValueError):
        yield None


def _from_row(row: dict[str, Any]) -> ResultLine | None:
    """Read a row of Parquet, in which a missing value is null."""
    fields = {name: value for name, value in row.items() if value is not None}
    fields.pop("columns", None)  # JSON, of which the report shows nothing
    try:
        return ResultLine.model_validate(fields)
    except ValidationError:
        return None
