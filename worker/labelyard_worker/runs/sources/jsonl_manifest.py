"""Entries of a manifest of JSON lines."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, cast

from pydantic_core import from_json

from labelyard.runs.line_faults import MAX_LINE_BYTES, LineFault
from labelyard_worker.runs.sources.entries import EMPTY, Entry, EntryBlock, LineProblem
from labelyard_worker.runs.sources.physical_lines import BYTE_ORDER_MARK, PhysicalLine

TOO_LONG: Final = LineProblem(
    LineFault.LINE_TOO_LONG, f"the line is longer than {MAX_LINE_BYTES} bytes"
)
NOT_AN_OBJECT: Final = LineProblem(
    LineFault.NOT_AN_OBJECT, 'write an object: {"custom_id": …, "uri": …}'
)
NOT_UTF_8: Final = LineProblem(LineFault.BAD_ENCODING, "the line is not UTF-8")
HAS_NUL: Final = LineProblem(
    LineFault.BAD_ENCODING, "the line holds NUL bytes: write UTF-8, not UTF-16"
)
HAS_MARK: Final = LineProblem(
    LineFault.BAD_ENCODING, "a byte order mark may only be at the beginning of the manifest"
)
_BLANK: Final = b" \t\r"
# Strings of values differ from line to line, so that a cache of them would cost time.
_parse: Final = partial(from_json, allow_inf_nan=False, cache_strings="keys")


def read_jsonl(blocks: Iterable[list[PhysicalLine]]) -> Iterator[EntryBlock]:
    """Parse the lines of a manifest; a line that is not an object becomes a problem."""
    first = 1
    for lines in blocks:
        yield EntryBlock(range(first, first + len(lines)), _entries(lines))
        first += len(lines)


def _entries(lines: list[PhysicalLine]) -> list[Entry]:
    try:
        parsed: list[Any] = list(map(_parse, cast("list[bytes]", lines)))
    except (ValueError, TypeError):  # TypeError: None stands for a line that is too long
        return [_entry(line) for line in lines]
    if set(map(type, parsed)) == {dict}:
        return parsed
    return [each if type(each) is dict else NOT_AN_OBJECT for each in parsed]


def _entry(line: PhysicalLine) -> Entry:
    """Parse one line, or find out why it is not JSON."""
    if line is None:
        return TOO_LONG
    try:
        fields = _parse(line)
    except ValueError as error:
        if not line.strip(_BLANK):
            return EMPTY
        reason = str(error).replace(" at line 1 column ", ", column ")
        return encoding_problem(line) or LineProblem(LineFault.BAD_JSON, f"is not JSON: {reason}")
    return fields if type(fields) is dict else NOT_AN_OBJECT


def encoding_problem(line: bytes) -> LineProblem | None:
    """Return the problem of a line that is not UTF-8 text."""
    if line.startswith(BYTE_ORDER_MARK):
        return HAS_MARK
    if b"\0" in line:
        return HAS_NUL
    try:
        line.decode()
    except UnicodeDecodeError:
        return NOT_UTF_8
    return None
