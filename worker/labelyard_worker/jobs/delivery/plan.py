"""The plan of a result's deliveries: which a job asks for, and which of a record are due."""

import logging
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from labelyard.errors import InvalidMessageError
from labelyard.ledger import Record
from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard.messages import Job, Result

log = logging.getLogger(__name__)

# A delivery that falls due before the next look at the ledger is due now.
LOOK_EVERY_S: Final = 0.5
UNDELIVERED_EVENTS: Final = {"failed": "delivery_failed", "refused": "delivery_refused"}


class Sender(Protocol):
    """Makes one kind of delivery."""

    def host_of(self, job: Job) -> str:
        """Name the host that the delivery goes to; raises NotPermittedError."""

    async def send(self, job: Job, result: Result) -> DeliveryOutcome:
        """Try once; bounded in time, and raises nothing that can be expected."""


@dataclass
class Delivery:
    """The pending deliveries of one finished job, in this worker's memory.

    Attributes:
        names: Deliveries to try now.
        held_at: Monotonic time at which the lease was last renewed.
        is_calling: Whether a call has begun, so that its outcome must be written.
    """

    job: Job
    result: Result
    names: tuple[str, ...]
    held_at: float = field(default_factory=time.monotonic)
    is_calling: bool = False


def to_delivery(record: Record, *, now: float) -> Delivery | None:
    """Return the due deliveries of a record; ``None`` if there is nothing to deliver.

    Raises:
        InvalidMessageError: An earlier version accepted what this one does not.
    """
    if record.fault:
        raise InvalidMessageError(record.fault)
    if record.result is None or not record.undelivered:
        return None
    due = tuple(
        name
        for name in record.undelivered
        if (record.deliveries[name].next_try_at or 0.0) <= now + LOOK_EVERY_S
    )
    return Delivery(record.job(), record.result, due or record.undelivered)


def deliveries_of(job: Job, result: Result | None = None) -> tuple[str, ...]:
    """Name the deliveries that a job wants, besides the ledger and its stream.

    The object of a large result is written already.
    """
    is_written = result is not None and result.object_uri is not None
    object_uri = None if is_written else job.deliver.object_uri
    wanted = (("object", object_uri), ("webhook", job.deliver.webhook))
    return tuple(name for name, target in wanted if target)


def log_outcome(job_id: str, name: str, outcome: DeliveryOutcome) -> None:
    """Log an attempt that delivered nothing."""
    if event := UNDELIVERED_EVENTS.get(outcome.kind):
        fields = {"job_id": job_id, "delivery": name, "why": outcome.reason}
        log.warning(event, extra={"fields": fields})
