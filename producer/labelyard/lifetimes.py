"""Relative expiries of jobs, kept until the job is submitted and the ledger's clock is read.

A message carries an instant, ``expires_at``. A job that may live for 30 s must not get it from a
producer whose clock is wrong, so the instant is computed again by the ledger's clock when the job
is submitted.
"""

import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from labelyard.forking import call_in_child
from labelyard.messages import Job

#: Prepared jobs that are remembered; the oldest is forgotten first, and keeps the instant
#: that was computed by the producer's own clock.
CAPACITY: Final = 100_000


class Lifetimes:
    """Relative expiry of each job that was made here, by job id. Safe to share between threads."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        call_in_child(self._renew)
        self._ends: OrderedDict[str, float] = OrderedDict()

    def _renew(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    def remember(self, job_id: str, expires_in_s: float) -> None:
        """Note that the job, made just now, expires in *expires_in_s* seconds."""
        with self._lock:
            self._ends[job_id] = time.monotonic() + expires_in_s
            self._ends.move_to_end(job_id)
            if len(self._ends) > self._capacity:
                self._ends.popitem(last=False)

    def forget(self, job_id: str) -> None:
        """Drop a job that was made again, with an instant or without an expiry."""
        with self._lock:
            self._ends.pop(job_id, None)

    def has(self, job: Job) -> bool:
        """Return whether *job* was made with a relative expiry."""
        return job.expires_at is not None and job.job_id in self._ends

    def resolve(self, job: Job, *, now: float) -> Job:
        """Return *job* with the instant at which it expires.

        Args:
            now: The ledger's time, in seconds since the epoch.
        """
        with self._lock:
            end = self._ends.get(job.job_id)
        if end is None or job.expires_at is None:
            return job
        expires_at = datetime.fromtimestamp(now, UTC) + timedelta(seconds=end - time.monotonic())
        return job.model_copy(update={"expires_at": expires_at})


#: Those of this process: a job may be prepared with one client and submitted with another.
LIFETIMES: Final = Lifetimes()
