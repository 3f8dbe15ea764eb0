"""Single flight: a job runs once at a time in this process, however often it is delivered.

Every reconnect to the broker delivers all unacknowledged messages again, beside the
attempts that still run. Without this map each job would run twice at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from labelyard_worker.waiting_jobs import WAITING_JOBS


class SingleFlight:
    """Map of the jobs that run in this process, by id; called from many threads."""

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._lock = threading.Lock()
        self._ended: dict[str, threading.Event] = {}

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Block other deliveries of *job_id* until the block ends.

        The delivery that waited then reads the first one's end from the ledger. It must not
        acknowledge its message before that: the message may be the only one that is left.
        """
        if not self._is_on:
            yield
            return
        ended = threading.Event()
        while (running := self._enter(job_id, ended)) is not None:
            with WAITING_JOBS.waiting():
                running.wait()
        try:
            yield
        finally:
            with self._lock:
                del self._ended[job_id]
            ended.set()

    def _enter(self, job_id: str, ended: threading.Event) -> threading.Event | None:
        """Acquire the job, or return the event that is set when its present run ends."""
        with self._lock:
            running = self._ended.get(job_id)
            if running is None:
                self._ended[job_id] = ended
            return running

    def __len__(self) -> int:
        """Count the running jobs, those with a waiting delivery once."""
        return len(self._ended)
