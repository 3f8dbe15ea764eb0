"""The ledger's part in deliveries: who holds one, how each attempt ended, when the next is due.

A finished job's record names the deliveries that are still pending (``undelivered``), and
how each went (``deliveries``). The key ``pending_deliveries`` holds these jobs by the
time at which a worker should take them. A worker that takes a job moves it a lease ahead and
writes its own name into the record, so that one worker at a time delivers a job, and a
dead worker's deliveries are taken over when its lease ends. The key ``dead_deliveries`` holds the
jobs with a delivery that was refused or given up; see ``webhooks.py`` for what people do with them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from labelyard.ledger.commands import RetrySchedule
from labelyard.ledger.limits import DELIVERY_LEASE_S

if TYPE_CHECKING:
    from labelyard.ledger.client import Ledger

RETRY_FOR_A_DAY: Final = RetrySchedule()


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """How one attempt at a delivery ended.

    Attributes:
        kind: ``delivered``; ``failed``, to be tried again; ``refused``, for good; or
            ``postponed``: not tried, and not counted as an attempt.
        reason: Why, without addresses; empty if delivered.
        retry_in_s: Seconds to the next attempt; ``None`` lets the ledger decide.
        is_host_fault: Whether the failure is a sign that the host as a whole fails.
    """

    kind: Literal["delivered", "failed", "refused", "postponed"]
    reason: str = ""
    retry_in_s: float | None = None
    is_host_fault: bool = False

    def fields(self) -> dict[str, Any]:
        """Return the fields that the settle script reads."""
        retry = {} if self.retry_in_s is None else {"retry_in_s": round(self.retry_in_s, 3)}
        return {"kind": self.kind, "reason": self.reason[:300], **retry}


@dataclass(frozen=True, slots=True)
class Taken:
    """Deliveries that one worker took.

    Attributes:
        job_ids: Jobs whose deliveries it holds a lease on.
        now: Redis' time, in seconds since the epoch.
        pending: Jobs with pending deliveries, due or not.
    """

    job_ids: tuple[str, ...]
    now: float
    pending: int


class DeliveryLedger:
    """One worker's operations on the deliveries in the ledger.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(
        self,
        ledger: "Ledger",
        *,
        worker: str,
        lease_s: float = DELIVERY_LEASE_S,
        schedule: RetrySchedule = RETRY_FOR_A_DAY,
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease_s = lease_s
        self._schedule = schedule

    def take(self, limit: int) -> Taken:
        """Take up to *limit* jobs whose deliveries are due."""
        command = self._ledger.commands.take_deliveries(
            worker=self._worker, lease_s=self._lease_s, limit=limit
        )
        now, pending, *taken = self._ledger.run(command)
        return Taken(tuple(taken), now=float(now), pending=int(pending))

    def hold(self, job_id: str) -> bool:
        """Renew the lease on a job; ``False`` if another worker has it, or nothing is pending."""
        command = self._ledger.commands.hold_deliveries(
            job_id, worker=self._worker, lease_s=self._lease_s
        )
        return bool(self._ledger.run(command)[0] == "held")

    def settle(self, job_id: str, outcomes: Mapping[str, DeliveryOutcome]) -> bool:
        """Write how attempts ended, by delivery; returns whether nothing is pending any more."""
        command = self._ledger.commands.settle_deliveries(
            job_id,
            worker=self._worker,
            outcomes={name: outcome.fields() for name, outcome in outcomes.items()},
            jitter=random.random(),
            schedule=self._schedule,
        )
        return bool(self._ledger.run(command)[0] != "pending")
