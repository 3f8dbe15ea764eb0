"""Marks of the newest event of each object: duplicates and older events make no second job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from labelyard.ledger.async_client import AsyncLedger
from labelyard.ledger.object_event_commands import ObjectEventClaim, ObjectEventCommands

Verdict = Literal["claimed", "duplicate", "stale", "busy"]
#: Seconds that a caller has between its claim and its job's record, besides those for which it
#: tries again. A caller that dies in between blocks the object for that long.
LEASE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    """Answer of the ledger to a claim.

    Attributes:
        verdict: ``claimed``: open the job; ``duplicate`` or ``stale``: there is nothing to do;
            ``busy``: another process has a claim on the object.
        job_id: Job of the event, if it is a duplicate; job that an older event became alone, if
            the event was claimed; else that of the known event. Empty if there is none.
        wait_s: Seconds until a busy object is free at the latest.
    """

    verdict: Verdict
    job_id: str = ""
    wait_s: float = 0.0


class ObjectEventMarks:
    """Claims events for jobs, so that each event becomes part of one job, in order per object.

    Every method raises LedgerUnavailableError when the ledger gives no answer.
    """

    def __init__(self, ledger: AsyncLedger, *, window_s: float, lease_s: float = LEASE_S) -> None:
        """Use the connection of *ledger*.

        Args:
            window_s: Seconds that an event is remembered.
            lease_s: Seconds that a claim is held without a record of its job.
        """
        self._ledger = ledger
        self._commands = ObjectEventCommands(ledger.keys)
        self._window_s = window_s
        self._lease_s = lease_s

    async def claim(self, claims: Sequence[ObjectEventClaim]) -> list[ClaimAnswer]:
        """Claim events in one round trip, in their order; a repeated claim is claimed again."""
        answers = await self._ledger.run_many(
            [
                self._commands.claim(one, lease_s=self._lease_s, window_s=self._window_s)
                for one in claims
            ]
        )
        return [
            ClaimAnswer(cast("Verdict", verdict), job_id, float(wait_s))
            for verdict, job_id, wait_s in answers
        ]

    async def settle(self, claims: Sequence[ObjectEventClaim], *, is_kept: bool) -> None:
        """Keep claims whose job has a record, or release those whose job was refused."""
        await self._ledger.run_many([self._commands.settle(one, is_kept=is_kept) for one in claims])
