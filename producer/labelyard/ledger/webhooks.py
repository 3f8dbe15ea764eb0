"""Webhooks that have not arrived: list them, have them tried again, drop the dead ones."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, get_args

from labelyard.arguments import counted, job_id_of
from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger.client import Ledger
from labelyard.ledger.commands import Command
from labelyard.ledger.redis_errors import as_ours
from labelyard.ledger.undelivered import (
    MAX_EXAMINED,
    DeliveryKind,
    UndeliveredFilter,
    UndeliveredList,
    UndeliveredState,
    delivery_kind,
    list_undelivered,
    scan_undelivered,
)

EVERY_STATE: Final = (*get_args(UndeliveredState), "delivered")
# Field of ``deliver`` that wants a delivery.
FIELDS: Final = {"webhook": "webhook", "object": "object_uri"}


class Webhooks:
    """The webhooks of a ledger that have not arrived, and objects that were not written.

    A delivery that fails is tried again for a day (``LABELYARD_DELIVER_FOR_S``). Then, or if it is
    refused, it is a dead letter: its job's record is kept for ``LABELYARD_OPEN_TTL_S``, and it can
    be replayed. Its job is not changed by it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def list(
        self,
        *,
        state: UndeliveredState | None = None,
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
        limit: int = 100,
    ) -> UndeliveredList:
        """List deliveries that have not arrived: the newest dead letters, then those due soonest.

        Args:
            state: ``pending`` (not tried yet), ``failed`` (to be tried again) or ``dead``.
            host: Host of the receiver, with or without its port; of an object, ``s3://bucket``.
            since: Time from which the job finished, with an offset.
            kind: ``webhook`` or ``object``.
            limit: Most deliveries to list.

        Returns:
            The deliveries. A search ends after 20,000 jobs; ``is_cut`` is true then.

        Raises:
            InvalidMessageError: An argument has a value that no delivery can have.
        """
        wanted = UndeliveredFilter.checked(
            kind=kind, state=state, tenant=tenant, host=host, since=since
        )
        return list_undelivered(self._ledger, wanted, limit=counted(limit))

    def replay(self, job_id: str, *, kind: DeliveryKind = "webhook") -> None:
        """Have the webhook of a job called now, and retried for a day as that of a new result.

        One that has arrived is called again, with the same ``webhook-id``. A call whose reply was
        lost can be repeated.

        Raises:
            JobNotFoundError: There is no such job, or its record was dropped after its TTL.
            InvalidMessageError: The job has no result yet, or wants no such delivery.
        """
        job_id, kind = job_id_of(job_id), delivery_kind(kind)
        verdict = self._replay(job_id, kind=kind, states=EVERY_STATE)
        if verdict == "missing":
            raise JobNotFoundError(job_id)
        if verdict != "due":
            raise InvalidMessageError(
                f"{job_id} has no result yet, or its deliver.{FIELDS[kind]} is not set"
            )

    def replay_all(
        self,
        *,
        state: UndeliveredState = "dead",
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Have all webhooks in *state* called now, for example once their receiver is back.

        However many there are: they are read and replayed page by page.

        Args:
            state: ``dead``, or ``failed`` to end the pauses of those that would be retried anyway.

        Returns:
            Number of deliveries that are tried now.

        Raises:
            InvalidMessageError: An argument has a value that no delivery can have.
            LedgerUnavailableError: Redis gave no answer; some may have been replayed.
        """
        wanted = UndeliveredFilter.checked(
            kind=kind, state=state, tenant=tenant, host=host, since=since
        )
        commands, replayed = self._ledger.commands, 0
        for page in scan_undelivered(self._ledger, wanted):
            calls = [
                commands.replay_deliveries(one.job_id, kind=one.kind, states=(one.state,))
                for one in page
            ]
            replayed += self._count(calls, verdict="due")
        return replayed

    def purge(self, job_id: str) -> None:
        """Drop the dead deliveries of a job for good; its result stays readable for its TTL.

        Raises:
            JobNotFoundError: The job has no dead delivery.
        """
        command = self._ledger.commands.purge_deliveries(job_id_of(job_id))
        if self._ledger.run(command, is_durable=True)[0] != "purged":
            raise JobNotFoundError(f"{job_id} has no dead delivery")

    def purge_all(
        self,
        *,
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Drop all dead deliveries that match, and return their number; see :meth:`list`."""
        found = self.list(
            state="dead", tenant=tenant, host=host, since=since, kind=kind, limit=MAX_EXAMINED
        )
        commands = self._ledger.commands
        purges = (commands.purge_deliveries(one.job_id) for one in found.deliveries)
        return self._count(purges, verdict="purged")

    def _count(self, calls: Iterable[Command], *, verdict: str) -> int:
        """Run scripts in few round trips, and count those that answer with *verdict*."""
        answers = self._ledger.run_many(calls, is_durable=True)
        for answer in answers:
            if isinstance(answer, Exception):
                raise as_ours(answer) from answer
        return sum(answer[0] == verdict for answer in answers)

    def _replay(self, job_id: str, *, kind: DeliveryKind, states: Iterable[str]) -> str:
        """Replay a delivery if it is in one of *states*, and return the script's verdict."""
        command = self._ledger.commands.replay_deliveries(job_id, kind=kind, states=states)
        return str(self._ledger.run(command, is_durable=True)[0])
