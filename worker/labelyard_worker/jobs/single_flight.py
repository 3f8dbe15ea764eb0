"""Runs a job once in this process, however often its message is delivered.

Every reconnect to the broker brings back all messages that were in work, beside the
attempts that still run. Without this map each would run twice at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SingleFlight:
    """The jobs that are in work in this process, by id."""

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._lock = threading.Lock()
        self._ended: dict[str, threading.Event] = {}

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Keep other deliveries of *job_id* waiting until the block ends.

        The one that waited goes on then, and finds in the ledger what became of the
        first: it must not give up its message before that, for it may be the only one.
        """
        if not self._is_on:
            yield
            return
        ended = threading.Event()
        while (running := self._enter(job_id, ended)) is not None:
            running.wait()
        try:
            yield
        finally:
            with self._lock:
                del self._ended[job_id]
            ended.set()

    def _enter(self, job_id: str, ended: threading.Event) -> threading.Event | None:
        """Take the job, or get the event that ends whoever has it."""
        with self._lock:
            running = self._ended.get(job_id)
            if running is None:
                self._ended[job_id] = ended
            return running

    def __len__(self) -> int:
        """Count the jobs in work."""
        return len(self._ended)
