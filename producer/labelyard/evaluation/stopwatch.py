"""Stopwatch of a call that has a time limit."""

import time
from collections.abc import Callable


class Stopwatch:
    """Seconds since it was made, and how many of a time limit are left."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._timeout_s = timeout_s

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._start

    @property
    def left_s(self) -> float:
        """Seconds until the limit, at least 0."""
        return max(0.0, self._timeout_s - self.seconds)
