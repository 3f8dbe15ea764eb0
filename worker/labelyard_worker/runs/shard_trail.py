"""Trail of a shard: notes of how far an attempt has come, and the split that they permit."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import ShardPart, ShardRange

#: Parts of a shard that may kill its worker, one of which is on its way at a time: after a second
#: death the picture at fault is known.
CAREFUL_PARTS: Final = 32


@dataclass
class Trail:
    """Notes in the ledger how far a shard has come.

    Attributes:
        is_careful: Whether images are noted before they are sent, because the shard may kill its
            worker; else the lines that are done are noted.
    """

    runs: RunLedger
    part: ShardPart
    start: int
    is_careful: bool
    _noted_at: float = field(default_factory=time.monotonic)

    def note_sent(self, done: int, sent: int) -> None:
        """Note that the lines from *done* up to *sent* are sent next, if one may kill the worker."""
        if self.is_careful:
            trail = {"start": self.start, "done": done, "low": done, "high": sent}
            self.runs.note_trail(self.part, trail)

    def note_done(self, done: int, *, every_s: float = 0.0) -> None:
        """Note that *done* lines are done, unless the last note is younger than *every_s*."""
        if not self.is_careful and time.monotonic() - self._noted_at >= every_s:
            self._noted_at = time.monotonic()
            self.runs.note_trail(self.part, {"start": self.start, "done": done})


def split_range(lines: ShardRange, trail: Mapping[str, int]) -> list[ShardRange]:
    """Cut a shard that kills its workers; empty if it has one line only.

    Args:
        trail: Note of the last attempt, see :class:`Trail`.
    """
    if lines.lines == 1:
        return []
    low, high = trail.get("low", 0), trail.get("high", 0)
    if 0 <= low < high <= lines.lines and high - low < lines.lines:
        parts = lines.cut(low, high)
        suspect = lines.first + low
        return [part.model_copy(update={"is_suspect": part.first == suspect}) for part in parts]
    return [half.model_copy(update={"is_suspect": True}) for half in lines.cut(lines.lines // 2)]
