"""Retries of a call to the ledger until the ledger answers."""

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from labelyard.errors import LedgerUnavailableError
from labelyard_worker.jobs.errors import LedgerAwayError
from labelyard_worker.waiting_jobs import WAITING_JOBS

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 2.0


class LedgerRetry:
    """Retry calls to the ledger: the end of a job must be written, however long Redis is down.

    Args:
        should_stop: Whether to give up instead of waiting on: the worker shuts down.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def call(self, step: Callable[[], Answer]) -> Answer:
        """Call *step* until the ledger answers, and return its result; *step* may be repeated.

        Raises:
            LedgerAwayError: The worker shuts down and cannot wait any longer.
        """
        delay_s = FIRST_DELAY_S
        while True:
            try:
                with WAITING_JOBS.waiting():
                    return step()
            except LedgerUnavailableError as error:
                if self._should_stop():
                    raise LedgerAwayError(str(error)) from error
                log.warning("ledger_unavailable", extra={"fields": {"delay_s": delay_s}})
                with WAITING_JOBS.waiting():
                    time.sleep(random.uniform(0, delay_s))
                delay_s = min(LONGEST_DELAY_S, delay_s * 2)
