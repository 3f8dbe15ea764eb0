"""Tables of the command line: one line a row, with columns left out where the terminal is narrow.

An id is there to be copied, so no cell is broken into two lines. Without a terminal, as in a pipe,
every column is printed in full.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

GAP: Final = 2
#: Width to which a column of sentences may shrink before columns are left out.
SENTENCE_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        rank: How soon the column is left out of a narrow table, the highest first; 0 is never.
        is_right: Whether its cells stand at the right, as numbers do.
        is_sentence: Whether its cells may be cut, as long sentences are.
    """

    title: str
    rank: int = 0
    is_right: bool = False
    is_sentence: bool = False


def table_lines(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    *,
    width: int | None,
    has_note: bool = True,
) -> list[Text]:
    """Draw a table, its titles first; a column that may be left out is if it has no entry.

    Args:
        width: Cells of the terminal; ``None`` prints everything in full.
        has_note: Whether a last line names the columns that are left out.
    """
    texts = [[_one_line(cell) for cell in row] for row in rows]
    widths = [
        max([cell_len(column.title), *(cell_len(row[at]) for row in texts)])
        for at, column in enumerate(columns)
    ]
    kept = [
        at for at, column in enumerate(columns) if column.rank == 0 or any(row[at] for row in texts)
    ]
    unused = set(range(len(columns))) - set(kept)
    if width is not None:
        kept = _fit(columns, widths, kept, width)
    head = _line([columns[at] for at in kept], [columns[at].title for at in kept], widths, kept)
    head.stylize("bold")
    lines = [head]
    lines += [
        _line([columns[at] for at in kept], [row[at] for at in kept], widths, kept) for row in texts
    ]
    left_out = [columns[at].title for at in range(len(columns)) if at not in {*kept, *unused}]
    if left_out and has_note:
        note = f"not shown here, for lack of room: {', '.join(left_out)}; --json has all"
        lines.append(Text(note, style="dim"))
    return lines


def _fit(columns: Sequence[Column], widths: list[int], used: list[int], width: int) -> list[int]:
    """Choose the columns that fit; columns of sentences shrink first, in *widths*."""
    kept = list(used)
    full = list(widths)
    while True:
        for at in kept:
            if columns[at].is_sentence:
                others = sum(full[one] + GAP for one in kept if one != at)
                widths[at] = min(full[at], max(SENTENCE_WIDTH, width - others))
        if sum(widths[at] + GAP for at in kept) - GAP <= width:
            return kept
        last = max(kept, key=lambda at: (columns[at].rank, at))
        if columns[last].rank == 0:
            return kept
        kept.remove(last)


def _line(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], kept: Sequence[int]
) -> Text:
    parts = []
    for column, cell, at in zip(columns, cells, kept, strict=True):
        room = widths[at]
        if cell_len(cell) > room:
            parts.append(set_cell_size(cell, room - 1) + "…")
        elif column.is_right:
            parts.append(" " * (room - cell_len(cell)) + cell)
        else:
            parts.append(cell + " " * (room - cell_len(cell)))
    return Text((" " * GAP).join(parts).rstrip())


def _one_line(cell: object) -> str:
    """Write a cell without line ends and other control characters, which would act on the terminal."""
    text = "" if cell is None else str(cell)
    return "".join(
        " " if char in "\n\r\t" else char if char.isprintable() else "�" for char in text
    )


def print_lines(lines: Iterable[Text]) -> None:
    """Print lines as they are: the terminal breaks those that are too long, not we."""
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True)


def terminal_width() -> int | None:
    """Return the width of the terminal; ``None`` if standard output is not one."""
    console = Console()
    return console.width if console.is_terminal else None


def print_columns(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output."""
    print_lines(table_lines(columns, rows, width=terminal_width()))


def pair_lines(fields: Mapping[str, object]) -> list[Text]:
    """Draw names and values in two columns."""
    room = max(map(cell_len, fields), default=0) + GAP
    return [
        Text(name + " " * (room - cell_len(name)), style="bold").append(
            _one_line(value), style="not bold"
        )
        for name, value in fields.items()
    ]
