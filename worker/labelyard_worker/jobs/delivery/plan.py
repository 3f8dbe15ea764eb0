"""Plan of a result's deliveries: those that its job wants, and those of a record that are due."""

import logging
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from pydantic import ValidationError

from labelyard.errors import InvalidMessageError
from labelyard.ledger import Record
from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard.messages import Job, Result, refusal_of
from labelyard.outgoing import FINISH_TASK
from labelyard.runs.parts import EndPart
from labelyard.runs.run_end import RunEnd
from labelyard_worker.spans import Span, current, tracer

log = logging.getLogger(__name__)

# Seconds between two reads of due deliveries; one that is due before the next read is due now.
POLL_EVERY_S: Final = 0.5
UNDELIVERED_EVENTS: Final = {"failed": "delivery_failed", "refused": "delivery_refused"}


#: What names the destinations of a result, and the result itself: a job's, or the end of a run.
Sendable = Job | EndPart
Sent = Result | RunEnd


class Sender(Protocol):
    """Makes deliveries of one kind: objects, webhooks."""

    def host_of(self, job: Sendable) -> str:
        """Return the host of the delivery; raises NotPermittedError."""

    async def send(self, job: Sendable, result: Sent) -> DeliveryOutcome:
        """Try once, in bounded time; return every expected failure as the outcome."""


@dataclass
class Delivery:
    """The pending deliveries of one finished job or run, in this worker's memory.

    Attributes:
        names: Deliveries to try now.
        held_at: Monotonic time at which the lease was last renewed.
        is_calling: Whether a call has begun, so that its outcome must be written.
        attempt: Span of the attempt that made the result, if it was this worker's.
    """

    job: Sendable
    result: Sent
    names: tuple[str, ...]
    held_at: float = field(default_factory=time.monotonic)
    is_calling: bool = False
    attempt: Span = field(default_factory=current)


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
        if (record.deliveries[name].next_try_at or 0.0) <= now + POLL_EVERY_S
    )
    if record.task == FINISH_TASK:
        return end_delivery(record, due or record.undelivered)
    return Delivery(record.job(), record.result, due or record.undelivered)


def end_delivery(record: Record, names: tuple[str, ...]) -> Delivery:
    """Return the delivery of the end of a run.

    Raises:
        InvalidMessageError: The record does not hold what is read here.
    """
    try:
        notice = RunEnd.model_validate_json(record.notice)
    except ValidationError as error:
        raise refusal_of(error) from error
    return Delivery(EndPart.parse(record.message), notice, names)


def deliveries_of(job: Sendable, result: Result | None = None) -> tuple[str, ...]:
    """Name the deliveries that a job or a run wants, besides the ledger and its stream.

    The object of a large result is written already.
    """
    is_written = result is not None and result.object_uri is not None
    object_uri = None if is_written else job.deliver.object_uri
    wanted = (("object", object_uri), ("webhook", job.deliver.webhook))
    return tuple(name for name, target in wanted if target)


def start_delivery_span(delivery: Delivery, name: str) -> Span:
    """Start the span of one try at a delivery."""
    job = delivery.job
    attributes = {
        "messaging.message.id": job.job_id,
        "labelyard.tenant": job.tenant,
        "labelyard.delivery": name,
    }
    return tracer().delivery(job.trace, attempt=delivery.attempt, attributes=attributes)


def log_outcome(job_id: str, name: str, outcome: DeliveryOutcome) -> None:
    """Log an attempt that failed or was refused."""
    if event := UNDELIVERED_EVENTS.get(outcome.kind):
        fields = {"job_id": job_id, "delivery": name, "why": outcome.reason}
        log.warning(event, extra={"fields": fields})
