"""Calls of the scripts that claim events of object storage for jobs."""

from dataclasses import dataclass

from labelyard.ledger.commands import Command
from labelyard.ledger.keys import LedgerKeys


@dataclass(frozen=True, slots=True)
class ObjectEventClaim:
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


class ObjectEventCommands:
    """Builds the calls for one namespace."""

    def __init__(self, keys: LedgerKeys) -> None:
        self._keys = keys

    def claim(self, claim: ObjectEventClaim, *, lease_s: float, window_s: float) -> Command:
        """Claim an event of object storage for a job."""
        args = [
            self._keys.namespace,
            claim.identity,
            claim.order,
            claim.first,
            claim.last,
            claim.job_id,
            "1" if claim.is_alone else "",
            str(lease_s),
            str(window_s),
        ]
        return Command("claim_object_event", [self._keys.object_event(*claim.mark)], args)

    def settle(self, claim: ObjectEventClaim, *, is_kept: bool) -> Command:
        """Keep a claim on an event, or give it up."""
        args = [claim.job_id, "kept" if is_kept else "released"]
        return Command("settle_object_event", [self._keys.object_event(*claim.mark)], args)
