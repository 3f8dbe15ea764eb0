"""Ends a worker within its grace: finish what runs, hand back the rest, leave with 0.

Celery's warm shutdown takes no new message and waits for the running tasks, without
any limit. After the grace, what still runs is told to stop and goes back to the
queue; what cannot hear (it hangs in native code) is given to the ledger to be sent
again, and the process ends. So it does when closing takes too long: a broker behind a
half-open connection lets each farewell wait for its time-out.
"""

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from labelyard.errors import LedgerUnavailableError
from labelyard_worker.jobs.cancellation import Token, handed_back

if TYPE_CHECKING:
    from labelyard_worker.services import Services

log = logging.getLogger(__name__)
# What is told to stop looks at its token every 0.2 s.
STOP_S = 1.5
CLOSE_S = 5.0


class Drain:
    """One shutdown of one worker."""

    def __init__(self, services: "Services", *, drain_s: float) -> None:
        self._services = services
        self._drain_s = drain_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-drain", daemon=True)
        # Never cancelled: it goes on while the interpreter closes, and dies with it.
        self._limit = threading.Timer(drain_s + STOP_S + CLOSE_S, self._end_process)
        self._limit.name = "labelyard-drain-limit"
        self._limit.daemon = True

    def start(self) -> None:
        """Take no new job, and begin the grace period. A second call does nothing."""
        if self._services.executor.is_draining:
            return
        self._services.executor.is_draining = True
        self._services.deliveries.drain(self._drain_s)
        log.info(
            "worker_drains",
            extra={"fields": {"jobs": len(self._services.running), "drain_s": self._drain_s}},
        )
        self._limit.start()
        self._thread.start()

    def _run(self) -> None:
        if self._wait_for_jobs(self._drain_s):
            return
        self._services.running.stop_all(handed_back)
        if self._wait_for_jobs(STOP_S):
            return
        for token in self._services.running.all():
            self._give_to_ledger(token)
        self._end_process()

    def _end_process(self) -> None:
        """Leave the rest to the visibility timeout."""
        log.error("drain_ends_process", extra={"fields": {"jobs": len(self._services.running)}})
        os._exit(0)

    def _wait_for_jobs(self, timeout_s: float) -> bool:
        """Wait until nothing runs, or the worker is closed; ``False`` when the time is over."""
        until = time.monotonic() + timeout_s
        while len(self._services.running):
            if self._closed.wait(0.05):
                return True
            if time.monotonic() >= until:
                return False
        return True

    def _give_to_ledger(self, token: Token) -> None:
        services = self._services
        try:
            services.ledger.retry(
                token.job_id,
                worker=services.worker,
                delay_s=0,
                death="hung at exit",
                start=token.start,
            )
        except LedgerUnavailableError:
            log.warning("job_left_to_visibility", extra={"fields": {"job_id": token.job_id}})

    def close(self) -> None:
        """Note that the worker is down."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
