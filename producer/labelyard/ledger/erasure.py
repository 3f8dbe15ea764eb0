"""Erase a job from the ledger: its message, its result, and every entry that names it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.set_aside import MAX_ENTRIES, messages_naming
from labelyard.messages import Deliver

if TYPE_CHECKING:
    from labelyard.ledger.client import Ledger
    from labelyard.ledger.records import Record

# A page of the event stream takes Redis about two milliseconds.
EVENTS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Erasure:
    """Objects and messages of an erased job outside the ledger, for its owner to delete.

    Attributes:
        job_id: The job.
        object_uri: Object that the result was to be delivered to; empty if none was asked for.
        webhook: Address that the result was to be delivered to; empty if none was asked for.
        set_aside: Number of set-aside messages that named the job and were dropped.
        maps: Objects with the maps of its explanations.
    """

    job_id: str
    object_uri: str = ""
    webhook: str = ""
    set_aside: int = 0
    maps: tuple[str, ...] = ()


def erase_job(ledger: "Ledger", job_id: str) -> Erasure:
    """Erase a job, which is cancelled first if it is open; a repeated call does no harm.

    Raises:
        JobNotFoundError: The ledger does not know the job.
        LedgerUnavailableError: Redis gave no answer; the job may have been erased.
    """
    ledger.sightings.forget([job_id])
    record = ledger.read(job_id)
    deliver = _deliveries_of(record)
    verdict = ledger.run(ledger.commands.forget(job_id), is_durable=True)[0]
    ledger.sightings.forget([job_id])
    messages, _ = messages_naming(ledger, job_id, max_searched=MAX_ENTRIES)
    for message in messages:
        ledger.run(ledger.commands.remove_set_aside(message.id))
    events = 0 if verdict == "forgotten" else _erase_events(ledger, job_id)
    if verdict == "missing" and not messages and not events:
        raise JobNotFoundError(job_id)
    return Erasure(
        job_id=job_id,
        object_uri=deliver.object_uri or "",
        webhook=deliver.webhook or "",
        set_aside=len(messages),
        maps=maps_of(record),
    )


def maps_of(record: "Record | None") -> tuple[str, ...]:
    """Return the addresses of the maps that a job's result names."""
    images = record.result.images if record is not None and record.result is not None else ()
    return tuple(one.object_uri for image in images for one in image.explanations)


def _erase_events(ledger: "Ledger", job_id: str) -> int:
    """Erase the events of a job whose record, which would name them, was dropped after its TTL.

    Returns:
        Their number.
    """
    commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)
    erased, after = 0, "0-0"
    while after:
        command = commands.erase(job_id, after=after, count=EVENTS_AT_ONCE)
        count, after = ledger.run(command)
        erased += int(count)
    return erased


def _deliveries_of(record: "Record | None") -> Deliver:
    """Return the deliveries of the job's result; a message that is not a job has none."""
    try:
        return record.job().deliver if record is not None else Deliver()
    except InvalidMessageError:
        return Deliver()
