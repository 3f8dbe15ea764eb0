"""Claim on an event of object storage, as the ledger's scripts take it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventClaim:
    """An event of object storage, as far as the ledger must know it.

    Attributes:
        mark: Name of the rule, and digest of the object's address.
        identity: Equal for the same event that is sent again.
        order: Kind of the times; times of different kinds are not compared.
        first: Earliest time of the event, as text that sorts like the times of its kind.
        last: Latest time of the event.
        job_id: Job that the event becomes part of; empty if it is only noted.
        is_alone: Whether the job has no other image.
    """

    mark: tuple[str, str]
    identity: str
    order: str
    first: str
    last: str
    job_id: str = ""
    is_alone: bool = False
