"""Gate in front of claims: while tenants take turns, few jobs compute at once.

The claim script serves the tenant whose turn it is, but a claimed job then shares the interpreter
with all others that were claimed before it. A flood of jobs that need no model, pictures known
already, kept all slots of a worker computing: another tenant's job took three times as long as on
an idle worker. Behind this gate such jobs wait in the broker instead, where turns are taken.
"""

import time
from collections.abc import Callable
from typing import Final

from labelyard_worker.waiting_jobs import WAITING_JOBS, WaitingJobs

#: Jobs that compute at once. With two, a worker beside its ledger did as many jobs a second, and the
#: job whose turn came next took a third longer. With a ledger far away it was not measured.
COMPUTING_JOBS: Final = 1
#: Seconds without a claim after which one passes anyway: jobs may wait for what nothing counts.
OPEN_AFTER_S: Final = 0.05


class ClaimGate:
    """Gate of one channel.

    Args:
        wake: Makes the event loop take its next turn, and with it the next claim; called from
            the threads of jobs.

    Attributes:
        is_on: Whether tenants take turns in the list that the last message came from.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        jobs: WaitingJobs = WAITING_JOBS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake = wake
        self._jobs = jobs
        self._clock = clock
        self._passed_at = clock()
        self.is_on = False

    def is_open(self, in_flight: int) -> bool:
        """Return whether a claim may be sent; if not, a job that begins to wait wakes the loop.

        The end of a job wakes it as well, by its acknowledgement.

        Args:
            in_flight: Unacknowledged messages of the channel.
        """
        if self.is_on and self._is_closed(in_flight):
            self._jobs.call_at_next(self._wake)
            if self._is_closed(in_flight):  # still: none began to wait in between
                return False
        self._passed_at = self._clock()
        return True

    def _is_closed(self, in_flight: int) -> bool:
        if in_flight - self._jobs.count < COMPUTING_JOBS:
            return False
        return self._clock() < self._passed_at + OPEN_AFTER_S
