"""Numbers, times and names in the words of a report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

NAMES_LISTED: Final = 5
NAME_CHARS: Final = 60


def count(number: int) -> str:
    """Write a number with marks between the thousands."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def percent(part: float, whole: float) -> str:
    """Write a share; one that is not 0 is never written as 0, nor one below all as 100."""
    if not whole:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99.9 < share < 100:
        return "over 99.9 %"
    return f"{share:.1f} %" if share < 10 and share % 1 else f"{share:.0f} %"


def rate(images_per_s: float) -> str:
    """Write a number of images per second."""
    return f"{images_per_s:.1f}" if images_per_s < 10 else f"{images_per_s:,.0f}"


def quoted(name: str) -> str:
    """Write a label's name in quotation marks, cut if it is long."""
    return f"“{name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + '…'}”"


def listed(names: Sequence[str]) -> str:
    """Write the first names, and the number of the others."""
    shown = ", ".join(map(quoted, names[:NAMES_LISTED]))
    more = len(names) - NAMES_LISTED
    return f"{shown} and {count(more)} more" if more > 0 else shown


def duration(seconds: float) -> str:
    """Write a duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock(at: float, *, is_dated: bool = False) -> str:
    """Write an instant in UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC" if is_dated else "%H:%M:%S")
