"""Presence: the keys by which others know that this worker lives, what it is and which jobs it runs.

A redelivered job whose worker has no presence key has seen that worker die; that is how deaths are
counted. A job that its worker's key does not name has ended there, whatever the ledger holds: the
ledger may have lost its last second. The worker's details are written beside it for people; no
worker acts on them.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from labelyard.errors import LedgerUnavailableError
from labelyard.ledger import Ledger
from labelyard.ledger.limits import PRESENCE_S
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard_worker.jobs.cancellation import RunningJobs

log = logging.getLogger(__name__)

# Seconds after which unchanged details are written again: the ledger may have lost them.
DETAILS_EVERY_S: Final = 30.0


def no_details() -> str:
    """Describe nothing."""
    return ""


class Presence:
    """Presence is responsible for renewing this worker's key with the ids of its running jobs.

    Args:
        worker: Name of this worker, unique among all that run.
        visibility_timeout_s: Seconds after which the broker gives a dead worker's messages to
            others; the key expires before.
        describe: Returns the worker's details as JSON, to be written as well.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        worker: str,
        visibility_timeout_s: float,
        running: RunningJobs,
        describe: Callable[[], str] = no_details,
    ) -> None:
        self._ledger = MaintenanceLedger(ledger)
        self._worker = worker
        # It must be gone before the broker gives the dead worker's messages to another.
        self._ttl_s = max(1.0, min(PRESENCE_S, visibility_timeout_s / 2))
        self._running = running
        self._describe = describe
        self._written = ""
        self._write_details_at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="labelyard-presence", daemon=True)

    def start(self) -> None:
        """Start renewing the presence key."""
        self._thread.start()

    def _renew(self) -> None:
        while True:
            try:
                self._renew_once()
            except LedgerUnavailableError as error:
                why = type(error.__cause__ or error).__name__
                log.warning("presence_failed", extra={"fields": {"why": why}})
            if self._closed.wait(self._ttl_s / 4):
                return

    def _renew_once(self) -> None:
        running = [token.job_id for token in self._running.all()]
        details, now = self._describe(), time.monotonic()
        is_written = details == self._written and now < self._write_details_at
        self._ledger.renew_presence(
            self._worker, running, ttl_s=self._ttl_s, details="" if is_written else details
        )
        if not is_written:
            self._written, self._write_details_at = details, now + DETAILS_EVERY_S

    def close(self) -> None:
        """Stop renewing, and delete the presence key: jobs handed back have not seen a death."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._ledger.end_presence(self._worker)
        except LedgerUnavailableError:
            return


def new_worker_name() -> str:
    """Name this process so that no other, earlier or elsewhere, has the same name."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
