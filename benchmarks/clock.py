"""The time that a run of the benchmark may still take."""

import time

from benchmarks.measure import Say


class Clock:
    """Time limit of a benchmark; each part that is skipped for lack of time is logged and kept.

    Attributes:
        left_out: Parts that there was no time for.
    """

    def __init__(self, limit_s: float, *, say: Say) -> None:
        self.left_out: list[str] = []
        self._started_at = time.monotonic()
        self._limit_s = limit_s
        self._say = say

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    def has(self, seconds: float, *, for_what: str) -> bool:
        """Return whether *seconds* are left; if not, log and keep *for_what* as skipped."""
        if self.elapsed_s + seconds <= self._limit_s:
            return True
        self.left_out.append(for_what)
        self._say(f"no time left for {for_what}")
        return False
