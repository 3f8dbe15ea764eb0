"""Entries of a manifest, some thousand at a time, as its reader hands them to the checks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from labelyard.runs.line_faults import LineFault

Fields: TypeAlias = Mapping[str, Any]

# Empty lines that are handed on at once, if a line follows them.
EMPTY_AT_ONCE: Final = 8_192


class LineProblem(NamedTuple):
    """Reason why a line names no image."""

    code: LineFault
    message: str


EMPTY: Final = LineProblem(LineFault.EMPTY_LINE, "the line is empty")

#: The fields of a line, or the reason why it has none.
Entry: TypeAlias = dict[str, Any] | LineProblem


class EntryBlock(NamedTuple):
    """Entries of several lines.

    Attributes:
        numbers: Number of each line, ascending.
        entries: As many.
    """

    numbers: Sequence[int]
    entries: Sequence[Entry]


def without_empty_end(blocks: Iterable[EntryBlock]) -> Iterator[EntryBlock]:
    """Drop the empty lines at the end of a manifest: they are no lines."""
    first = count = 0
    for numbers, entries in blocks:
        end = len(entries)
        while end and entries[end - 1] is EMPTY:
            end -= 1
        while end and count:
            now = min(count, EMPTY_AT_ONCE)
            yield EntryBlock(range(first, first + now), [EMPTY] * now)
            first, count = first + now, count - now
        if end < len(entries):
            first = first if count else numbers[end]
            count += len(entries) - end
        if end:
            yield EntryBlock(numbers[:end], entries[:end])
