"""Short forms of messages for people: what a prompt or a notebook shows of them.

The names in them are foreign text of any length, so each is cut.
"""

from collections.abc import Iterable
from typing import Final

MAX_SHOWN: Final = 3
MAX_CHARS: Final = 60


class Shown(str):
    """Text whose ``repr`` is itself, without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def cut(text: str, limit: int = MAX_CHARS) -> str:
    """Return *text*, with an ellipsis in place of what goes beyond *limit* characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def first_of(texts: Iterable[str], *, total: int) -> Shown:
    """Write the first of *total* texts, and how many there are besides."""
    shown = [text for text, _ in zip(texts, range(MAX_SHOWN), strict=False)]
    if total > len(shown):
        shown.append(f"… {total - len(shown)} more")
    return Shown(f"[{', '.join(shown)}]")
