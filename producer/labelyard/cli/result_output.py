"""Results of jobs, written as tables, JSON, JSON lines or CSV, to the terminal or a file."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_error, print_result
from labelyard.command_group import CommandError
from labelyard.errors import InvalidMessageError, LabelyardError
from labelyard.fields import CONTROL_CHARACTERS
from labelyard.ledger import Record
from labelyard.messages import Failure, ImageResult, Result
from labelyard.messages.result_rows import COLUMNS, Row, image_row

AsCsv = Annotated[bool, typer.Option("--csv", help="Write a table with a line for each image")]
AsJsonLines = Annotated[
    bool, typer.Option("--jsonl", help="Write a JSON object a line, one for each image")
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File for the results: .csv, .jsonl or .json"),
]


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Options that choose the form of results.

    Attributes:
        as_json: Whether each result is JSON on a line.
        as_jsonl: Whether each image is JSON on a line.
        as_csv: Whether each image is a line of a table.
        output: File for the results.
    """

    as_json: AsJson = False
    as_jsonl: AsJsonLines = False
    as_csv: AsCsv = False
    output: OutputFile = None


NUMBERED: Final = ("label", "score")
FORMATS: Final = ("csv", "jsonl", "json")
#: Cells that begin so are run as formulas by spreadsheets (OWASP, CSV injection).
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


class ResultWriter(ABC):
    """Writes the results of jobs as they become final."""

    def write(self, record: Record) -> bool:
        """Write a job's result or error; return whether every image has its labels."""
        try:
            result = record.outcome()
        except LabelyardError as error:
            print_error(error)
            self._write_failure(record, Failure.of(error))
            return False
        self._write_result(result, record)
        return result.status == "succeeded"

    def close(self) -> None:  # noqa: B027 - most have nothing left to write
        """Write the rows that are still buffered."""

    @abstractmethod
    def _write_result(self, result: Result, record: Record) -> None: ...

    def _write_failure(self, record: Record, failure: Failure) -> None:  # noqa: B027 - an error line is enough
        """Write that a job has no result."""


class TableWriter(ResultWriter):
    """Draws a table for each image on the terminal."""

    def _write_result(self, result: Result, record: Record) -> None:  # noqa: ARG002 - of others
        print_result(result)


class JsonWriter(ResultWriter):
    """Writes a result of the contract on each line."""

    def __init__(self, sink: "Sink") -> None:
        self._sink = sink

    def _write_result(self, result: Result, record: Record) -> None:  # noqa: ARG002 - of others
        self._sink.write(f"{result.model_dump_json()}\n")


class ImageWriter(ResultWriter):
    """Base of the formats with a line for each image, also of jobs without a result."""

    def __init__(self, sink: "Sink") -> None:
        self._sink = sink

    def _write_result(self, result: Result, record: Record) -> None:
        if not result.images and result.error is not None:
            self._write_failure(record, result.error)
            return
        for image in result.images:
            self._write_image(image, job_id=result.job_id)

    def _write_failure(self, record: Record, failure: Failure) -> None:
        if record.is_job and not record.task:
            for image in record.job().images:
                failed = ImageResult(id=image.id, uri=image.uri, error=failure)
                self._write_image(failed, job_id=record.job_id)

    @abstractmethod
    def _write_image(self, image: ImageResult, *, job_id: str) -> None: ...


class JsonLinesWriter(ImageWriter):
    """Writes a JSON object for each image, with lists for what is several."""

    def _write_image(self, image: ImageResult, *, job_id: str) -> None:
        row = image_row(image, job_id=job_id)
        fields: dict[str, Any] = {name: row[name] for name in COLUMNS}
        fields["matched"] = list(image.matched)
        fields["labels"] = [label.model_dump() for label in image.labels]
        fields["node"] = None if image.node is None else list(image.node.path)
        fields["parents"] = [parent.model_dump(mode="json") for parent in image.parents]
        self._sink.write(f"{json.dumps(fields, ensure_ascii=False)}\n")


class CsvWriter(ImageWriter):
    """Writes a line for each image, under a heading.

    Args:
        sink: Where the text goes.
        labels: Columns for labels; ``None`` keeps all rows until the end, and then takes as many
            as there are.
    """

    def __init__(self, sink: "Sink", *, labels: int | None) -> None:
        super().__init__(sink)
        self._labels = labels
        self._columns: list[str] = []
        self._kept: list[Row] = []

    def close(self) -> None:
        if self._kept:
            self._labels = 1 + (max(map(len, self._kept)) - len(COLUMNS)) // 2
        for row in self._kept:
            self._write_row(row)

    def _write_image(self, image: ImageResult, *, job_id: str) -> None:
        row = image_row(image, job_id=job_id)
        if self._labels is None:
            self._kept.append(row)
        else:
            self._write_row(row)

    def _write_row(self, row: Row) -> None:
        if not self._columns:  # with the first row: an error before it leaves no heading
            places = range(2, (self._labels or 1) + 1)
            self._columns = [*COLUMNS, *(f"{name}_{n}" for n in places for name in NUMBERED)]
            self._sink.write(csv_line(self._columns))
        self._sink.write(csv_line([to_cell(row.get(column)) for column in self._columns]))


def to_cell(value: str | float | bool | None) -> str:
    """Write a cell that no spreadsheet runs as a formula and no terminal as a command.

    Text that begins like a formula gets an apostrophe in front: ids, labels and addresses are
    foreign text. JSON lines have the exact text.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    text = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def csv_line(cells: list[str]) -> str:
    """Write the line of a table, quoted where it must be (RFC 4180, with a plain line feed)."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


class Sink:
    """Place of the written text: standard output, or a file."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write text, so that others see it at once.

        Raises:
            CommandError: The file cannot be written.
        """
        if self._file is None:
            typer.echo(text, nl=False)
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise CommandError("output_failed", f"{self._file.name}: {error}") from error


@contextmanager
def open_writer(options: ResultOptions, *, labels: int | None) -> Iterator[ResultWriter]:
    """Open the writer that the options choose; a file is made before any job is submitted.

    Args:
        labels: Most labels of an image, if that is known.

    Raises:
        InvalidMessageError: The options do not go together, or the file cannot be made.
    """
    given = (options.as_csv, options.as_jsonl, options.as_json)
    chosen = [name for name, is_on in zip(FORMATS, given, strict=True) if is_on]
    if len(chosen) > 1:
        raise InvalidMessageError(f"choose one of --{' and --'.join(chosen)}")
    output = options.output
    suffix = output.suffix.lower().removeprefix(".") if output is not None else ""
    form = chosen[0] if chosen else suffix
    if output is None:
        with _closed_at_the_end(_writer_of(form, Sink(), labels=labels)) as writer:
            yield writer
        return
    if form not in FORMATS:
        raise InvalidMessageError(f"--output {output}: add --csv, --jsonl or --json")
    try:
        file = output.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise InvalidMessageError(f"--output {output}: {error.strerror}") from error
    try:
        with _closed_at_the_end(_writer_of(form, Sink(file), labels=labels)) as writer:
            yield writer
    finally:
        with suppress(OSError):  # what could not be written has raised before
            file.close()


@contextmanager
def _closed_at_the_end(writer: ResultWriter) -> Iterator[ResultWriter]:
    """Close the writer also if the wait ends early: the results so far are of use."""
    try:
        yield writer
    finally:
        writer.close()


def _writer_of(form: str, sink: Sink, *, labels: int | None) -> ResultWriter:
    match form:
        case "csv":
            return CsvWriter(sink, labels=labels)
        case "jsonl":
            return JsonLinesWriter(sink)
        case "json":
            return JsonWriter(sink)
        case _:
            return TableWriter()
