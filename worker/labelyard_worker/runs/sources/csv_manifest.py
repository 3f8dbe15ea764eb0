"""Entries of a manifest in CSV: comma, semicolon or tab between the cells, a header above them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from labelyard.runs.line_faults import LineFault
from labelyard_worker.runs.sources.entries import EMPTY, Entry, EntryBlock, LineProblem
from labelyard_worker.runs.sources.jsonl_manifest import TOO_LONG, encoding_problem
from labelyard_worker.runs.sources.line_checks import CUSTOM_ID, URI
from labelyard_worker.runs.sources.physical_lines import PhysicalLine
from labelyard_worker.runs.sources.plan_parts import RunSourceError

DELIMITERS: Final = ",;\t"
# Lines that a cell in quotation marks may span. A mark that is never closed must not swallow
# the rest of the manifest.
MAX_ROW_LINES: Final = 256
MAX_COLUMNS: Final = 1_000
UNCLOSED: Final = LineProblem(
    LineFault.BAD_ROW, f"a quotation mark is not closed within {MAX_ROW_LINES} lines"
)
BAD_QUOTES: Final = LineProblem(
    LineFault.BAD_ROW, 'a quotation mark inside a cell must be doubled: ""'
)


def read_csv(blocks: Iterable[list[PhysicalLine]]) -> Iterator[EntryBlock]:
    """Parse the rows of a manifest; a row that is not one becomes a problem.

    A row's number is that of its first line; the header is line 1.

    Raises:
        RunSourceError: There is no header with the columns ``custom_id`` and ``uri``.
    """
    header: _Header | None = None
    lines: list[PhysicalLine] = []
    first = 1  # number of lines[0]
    for block in blocks:
        lines += block
        if header is None:
            header, first = _Header(lines.pop(0)), first + 1
        rows = _Rows(header, lines, first)
        yield from rows.read(is_last=False)
        first, lines = first + rows.place, lines[rows.place :]
    if header is None:
        raise RunSourceError("the manifest is empty: write a header and rows")
    yield from _Rows(header, lines, first).read(is_last=True)


class _Header:
    """Names of the columns, and the delimiter between them."""

    def __init__(self, line: PhysicalLine) -> None:
        """Parse the header, with the delimiter that finds both columns.

        Raises:
            RunSourceError: It has no such columns, or two of one name.
        """
        try:
            text = (line or b"").decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise RunSourceError("the header is not UTF-8") from error
        for delimiter in DELIMITERS:
            try:
                names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
            except csv.Error:
                continue
            if {CUSTOM_ID, URI} <= set(names):
                break
        else:
            raise RunSourceError(
                f"the header has no columns {CUSTOM_ID} and {URI}: write them into line 1"
            )
        if len(set(names)) < len(names) or len(names) > MAX_COLUMNS:
            raise RunSourceError(
                f"the header names a column twice, or more than {MAX_COLUMNS} columns"
            )
        self.names: list[str] = names
        self.delimiter = delimiter


class _Rows:
    """Rows of some lines; a row may span several of them."""

    def __init__(self, header: _Header, lines: Sequence[PhysicalLine], first: int) -> None:
        self._header = header
        self._lines = lines
        self._first = first
        #: Number of lines that were read.
        self.place = 0

    def read(self, *, is_last: bool) -> Iterator[EntryBlock]:
        """Yield the rows; unless the lines are the last ones, leave a row that may go on."""
        numbers: list[int] = []
        entries: list[Entry] = []
        while self.place < len(self._lines):
            self._read_plain(numbers, entries)
            if self.place == len(self._lines):
                break
            if not is_last and len(self._lines) - self.place < MAX_ROW_LINES:
                break
            self._add(numbers, entries, *self._read_odd())
        if entries:
            yield EntryBlock(numbers, entries)

    def _read_plain(self, numbers: list[int], entries: list[Entry]) -> None:
        """Read rows of one line each, up to the first line that is not one."""
        header = self._header
        names, width = header.names, len(header.names)
        texts = _texts(islice(self._lines, self.place, None))
        reader = csv.reader(texts, delimiter=header.delimiter, strict=True)
        first, start = self._first, self.place
        read = 0
        try:
            for row in reader:
                if len(row) != width or reader.line_num != read + 1:
                    break
                entries.append(dict(zip(names, row, strict=True)))
                read += 1
        except (csv.Error, _OddLineError):
            pass
        numbers.extend(range(first + start, first + start + read))
        self.place = start + read

    def _read_odd(self) -> tuple[Entry, int]:
        """Read one row that is empty, wrong, or spans lines; return with it its lines."""
        line = self._lines[self.place]
        if line is None:
            return TOO_LONG, 1
        if not line.strip():
            return EMPTY, 1
        if (problem := encoding_problem(line)) is not None:
            return problem, 1
        lines = self._lines[self.place : self.place + MAX_ROW_LINES]
        reader = csv.reader(_texts(lines), delimiter=self._header.delimiter, strict=True)
        try:
            row = next(reader)
        except (csv.Error, _OddLineError) as error:
            is_unclosed = "unexpected end" in str(error) or isinstance(error, _OddLineError)
            return UNCLOSED if is_unclosed else _bad_quotes(error), 1
        width = len(self._header.names)
        if len(row) != width:
            return _wrong_width(len(row), width), 1
        return dict(zip(self._header.names, row, strict=True)), reader.line_num

    def _add(self, numbers: list[int], entries: list[Entry], entry: Entry, count: int) -> None:
        numbers.append(self._first + self.place)
        entries.append(entry)
        self.place += count


class _OddLineError(Exception):
    """A line has no text: it is too long, or not UTF-8."""


def _texts(lines: Iterable[PhysicalLine]) -> Iterator[str]:
    """Decode lines, up to one that has no text.

    The line break is written again, because a cell may hold one.
    """
    for line in lines:
        if line is None or b"\0" in line:
            raise _OddLineError
        try:
            yield line.decode() + "\n"
        except UnicodeDecodeError as error:
            raise _OddLineError from error


def _wrong_width(found: int, wanted: int) -> LineProblem:
    return LineProblem(
        LineFault.BAD_ROW, f"the row has {found} cells, and the header {wanted} columns"
    )


def _bad_quotes(error: Exception) -> LineProblem:
    if "field larger" in str(error):
        return LineProblem(
            LineFault.FIELD_TOO_LONG, f"a cell is longer than {csv.field_size_limit()} characters"
        )
    return BAD_QUOTES
