"""Words of the command line for times, sizes and counts, and the times that a person types."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from labelyard.diagnosis.phrases import span
from labelyard.errors import InvalidMessageError

SECONDS_BY_UNIT: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
AGE: Final = re.compile(r"(\d{1,9})([smhdw])")
LONGEST_SINCE_S: Final = 100 * 366 * 86_400
SINCE_FORMS: Final = "10m, 2h, 3d, or a time with its offset such as 2026-03-01T09:30:00Z"


def ago(seconds: float | None) -> str:
    """Write an age for people."""
    if seconds is None:
        return "unknown"
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:.0f} days ago"
    return "now" if seconds < 1 else f"{span(seconds)} ago"


def lasted(seconds: float) -> str:
    """Write a duration for people: tenths of a second if it is short, days if it is long."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    return f"{seconds / 86_400:.0f} days" if seconds >= 2 * 86_400 else span(seconds)


def count(number: int) -> str:
    """Write a number with marks between the thousands."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def gibibytes(size_bytes: int | None) -> str:
    """Write the memory of a device."""
    return "" if size_bytes is None else f"{size_bytes / 2**30:.0f} GiB"


def read_since(text: str) -> datetime:
    """Read the time that ``--since`` names.

    Raises:
        InvalidMessageError: It is neither an age nor a time with an offset.
    """
    now = datetime.now(UTC)
    if found := AGE.fullmatch(text.strip()):
        seconds = int(found[1]) * SECONDS_BY_UNIT[found[2]]
        return now - timedelta(seconds=min(seconds, LONGEST_SINCE_S))
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidMessageError(f"--since {text}: write {SINCE_FORMS}") from error
    if at.tzinfo is None:
        raise InvalidMessageError(f"--since {text} has no offset: add Z or +01:00, or write 2h")
    return at
