"""Count of the jobs of this process that wait, so that a claim knows how many compute.

Jobs run in threads that share one interpreter lock: each one that computes slows down all others.
A job that waits for its images, for the ledger or for storage slows down none.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WaitingJobs:
    """Counter of waiting jobs; called from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._on_next: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """Number of jobs that wait now."""
        return self._count

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the calling job as waiting while the block runs; blocks do not nest."""
        with self._lock:
            self._count += 1
            on_next, self._on_next = self._on_next, None
        if on_next is not None:
            on_next()
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def call_at_next(self, callback: Callable[[], None]) -> None:
        """Call *callback* once, in the thread of the next job that begins to wait."""
        self._on_next = callback


#: The counter of this process.
WAITING_JOBS = WaitingJobs()
