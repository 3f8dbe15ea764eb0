"""Cancellation tokens: they stop a running job at its deadline, expiry, cancel or shutdown.

Cancellation is cooperative: threads cannot be killed, so the main path checks its token
between the stages and while it waits. A hang in native code is the watchdog's, or that of
an intake child, which is killed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import TypeVar

from labelyard.errors import (
    JobCancelledError,
    JobExpiredError,
    JobTimedOutError,
    LabelyardError,
)
from labelyard_worker.waiting_jobs import WAITING_JOBS

Answer = TypeVar("Answer")
POLL_EVERY_S = 0.2


class HandedBackError(LabelyardError):
    """The worker shuts down before the job is finished; another worker runs it again."""

    code = "handed_back"
    is_retryable = True


class RunPausedError(LabelyardError):
    """The run of a shard is paused: the shard is sent again later."""

    code = "run_paused"
    is_retryable = True


class Token:
    """Permission of one attempt to continue; checked by its thread, stopped by any other.

    Args:
        job_id: The job.
        timeout_s: Seconds that the attempt may take.
        expires_in_s: Seconds until the job expires, ``None`` for never.
        start: Number of the attempt, as the ledger gave it; ``None`` if it is not known.
    """

    def __init__(
        self,
        job_id: str,
        *,
        timeout_s: float,
        expires_in_s: float | None,
        start: int | None = None,
    ) -> None:
        self.job_id = job_id
        self.start = start
        self.started_at = time.monotonic()
        self.timeout_s = timeout_s
        self._expires_at = None if expires_in_s is None else self.started_at + expires_in_s
        self._stopped_by: LabelyardError | None = None

    def stop(self, reason: LabelyardError) -> None:
        """Make the next check raise *reason*; the first reason stands."""
        if self._stopped_by is None:
            self._stopped_by = reason

    def check(self) -> None:
        """Raise if the attempt must stop.

        Raises:
            JobCancelledError: The job is final in the ledger; drop it.
            JobExpiredError: The job's ``expires_at`` has passed.
            HandedBackError: The worker shuts down.
            JobTimedOutError: The attempt took too long; try again later.
        """
        if self._stopped_by is not None:
            raise self._stopped_by
        now = time.monotonic()
        if self._expires_at is not None and now >= self._expires_at:
            raise JobExpiredError(self.job_id)
        if now >= self.started_at + self.timeout_s:
            raise JobTimedOutError(self.job_id, f"more than {self.timeout_s:g} s")

    def wait(self, future: "Future[Answer]") -> Answer:
        """Wait for *future* while the attempt may continue.

        Raises:
            LabelyardError: The error of the future, or that of :meth:`check`.
        """
        while True:
            self.check()
            try:
                if future.done():
                    return future.result()
                with WAITING_JOBS.waiting():
                    return future.result(timeout=POLL_EVERY_S)
            except TimeoutError:
                if future.done():
                    raise
            except CancelledError:
                self.check()
                raise

    def wait_until(self, is_ready: Callable[[float], bool]) -> None:
        """Call *is_ready* with the seconds it may block, until it returns true."""
        with WAITING_JOBS.waiting():
            while not is_ready(POLL_EVERY_S):
                self.check()


class RunningJobs:
    """Tokens of all running jobs, so that other threads can stop them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}

    @contextmanager
    def holding(self, token: Token) -> Iterator[Token]:
        """Register *token* while the block runs."""
        with self._lock:
            self._tokens[token.job_id] = token
        try:
            yield token
        finally:
            with self._lock:
                if self._tokens.get(token.job_id) is token:
                    del self._tokens[token.job_id]

    def all(self) -> list[Token]:
        """Return a copy of the tokens."""
        with self._lock:
            return list(self._tokens.values())

    def stop(self, job_id: str, reason: LabelyardError) -> None:
        """Stop one job, if it runs in this process."""
        with self._lock:
            token = self._tokens.get(job_id)
        if token is not None:
            token.stop(reason)

    def stop_all(self, reason: Callable[[str], LabelyardError]) -> None:
        """Stop every running job."""
        for token in self.all():
            token.stop(reason(token.job_id))

    def __len__(self) -> int:
        """Count the running jobs."""
        return len(self._tokens)


def cancelled(job_id: str) -> JobCancelledError:
    """Return the error of a job that is final in the ledger."""
    return JobCancelledError(job_id)


def handed_back(job_id: str) -> HandedBackError:
    """Return the error of a job that is handed back because the worker shuts down."""
    return HandedBackError(job_id)
