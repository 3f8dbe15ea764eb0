"""The ledger's clock as a client knows it: read once in a while, counted on in between."""

import time
from typing import Final

#: Seconds after which the ledger's clock is read again: quartz clocks part by some milliseconds in it.
ASK_AFTER_S: Final = 60.0


class LedgerClock:
    """An estimate of Redis' time, kept up by the monotonic clock of this process.

    Deadlines are compared by the ledger's clock. A machine whose own clock is wrong by an hour
    still computes the same ones.
    """

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()  # until the ledger has answered
        self._ask_at = 0.0

    @property
    def is_fresh(self) -> bool:
        """Return whether the ledger's clock was read a short while ago."""
        return time.monotonic() < self._ask_at

    def note(self, answer: tuple[int, int], *, asked_at: float) -> None:
        """Keep an answer of Redis' TIME.

        Args:
            answer: Seconds and microseconds.
            asked_at: When the question was sent, by the monotonic clock.
        """
        seconds, microseconds = answer
        answered_at = time.monotonic()
        middle = (asked_at + answered_at) / 2
        self._base = seconds + microseconds / 1_000_000 - middle
        self._ask_at = answered_at + ASK_AFTER_S

    def now(self) -> float:
        """Estimate the ledger's time, in seconds since the epoch."""
        return self._base + time.monotonic()
