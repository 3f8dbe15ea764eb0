"""Shutdown of a worker within its grace period: running jobs finish, the rest are handed back.

Celery's warm shutdown receives no new message and waits for the running tasks, without
any limit. After the grace period, running jobs are stopped and go back to the queue. A job
that hangs in native code never looks at its token: the ledger has it republished, and the
process ends with 0. The process also ends when closing takes too long: with a broker behind
a half-open connection, each step of closing waits for its time-out.
"""

import logging
import os
import threading
import time

from labelyard.errors import LedgerUnavailableError
from labelyard.ledger import Ledger
from labelyard_worker.jobs.cancellation import RunningJobs, Token, handed_back
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.executor import Executor

log = logging.getLogger(__name__)
# A job that is stopped looks at its token every 0.2 s.
STOP_S = 1.5
CLOSE_S = 5.0


class Drain:
    """Shutdown of one worker process, by SIGTERM or by Celery's remote control."""

    def __init__(
        self,
        executor: Executor,
        running: RunningJobs,
        deliveries: DeliveryPool,
        ledger: Ledger,
        *,
        drain_s: float,
    ) -> None:
        """Prepare the shutdown; nothing happens before ``start``.

        Args:
            drain_s: Seconds that running jobs may take to finish.
        """
        self._executor = executor
        self._running = running
        self._deliveries = deliveries
        self._ledger = ledger
        self._drain_s = drain_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-drain", daemon=True)
        # Never cancelled: it goes on while the interpreter closes, and dies with it.
        self._limit = threading.Timer(drain_s + STOP_S + CLOSE_S, self._end_process)
        self._limit.name = "labelyard-drain-limit"
        self._limit.daemon = True

    def start(self) -> None:
        """Start no new job, and begin the grace period. A second call does nothing."""
        if self._executor.is_draining:
            return
        self._executor.is_draining = True
        self._deliveries.drain(self._drain_s)
        log.info(
            "worker_drains",
            extra={"fields": {"jobs": len(self._running), "drain_s": self._drain_s}},
        )
        self._limit.start()
        self._thread.start()

    def _run(self) -> None:
        if self._wait_for_jobs(self._drain_s):
            return
        self._running.stop_all(handed_back)
        if self._wait_for_jobs(STOP_S):
            return
        for token in self._running.all():
            self._republish(token)
        self._end_process()

    def _end_process(self) -> None:
        """End the process; the visibility timeout returns the messages of the remaining jobs."""
        log.error("drain_ends_process", extra={"fields": {"jobs": len(self._running)}})
        os._exit(0)

    def _wait_for_jobs(self, timeout_s: float) -> bool:
        """Wait until no job runs, or the worker is closed; return ``False`` after *timeout_s*."""
        until = time.monotonic() + timeout_s
        while len(self._running):
            if self._closed.wait(0.05):
                return True
            if time.monotonic() >= until:
                return False
        return True

    def _republish(self, token: Token) -> None:
        """Have the ledger republish a job that hangs; its death is counted."""
        try:
            self._ledger.retry(
                token.job_id,
                worker=self._executor.worker,
                delay_s=0,
                death="hung at exit",
                start=token.start,
            )
        except LedgerUnavailableError:
            log.warning("job_left_to_visibility", extra={"fields": {"job_id": token.job_id}})

    def close(self) -> None:
        """Stop waiting for jobs: the worker is closing."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
