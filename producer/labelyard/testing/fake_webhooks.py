"""Webhooks that have not arrived, in memory: a test adds them."""

from collections.abc import Sequence
from datetime import datetime

from labelyard.arguments import counted, job_id_of
from labelyard.errors import JobNotFoundError
from labelyard.ledger.undelivered import (
    DeliveryKind,
    UndeliveredFilter,
    UndeliveredList,
    UndeliveredResult,
    UndeliveredState,
    delivery_kind,
)
from labelyard.ledger.webhooks import Webhooks


class FakeWebhooks(Webhooks):
    """Webhooks that have not arrived, in memory.

    Attributes:
        undelivered: Deliveries that a test has added, the first to be listed at the front.
        replayed: Ids of the jobs whose delivery was replayed, in this order.
    """

    def __init__(self) -> None:
        self.undelivered: list[UndeliveredResult] = []
        self.replayed: list[str] = []

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
        """List the deliveries that a test has added."""
        wanted = UndeliveredFilter.checked(
            kind=kind, state=state, tenant=tenant, host=host, since=since
        )
        found = [one for one in self.undelivered if wanted.matches(one)]
        listed = tuple(found[: counted(limit)])
        return UndeliveredList(listed, examined=len(self.undelivered), is_cut=False)

    def replay(self, job_id: str, *, kind: DeliveryKind = "webhook") -> None:
        """Take a delivery off the list, as if its receiver was called and answered."""
        job_id, kind = job_id_of(job_id), delivery_kind(kind)
        self._take(job_id, [one for one in self._of(job_id) if one.kind == kind])
        self.replayed.append(job_id)

    def replay_all(
        self,
        *,
        state: UndeliveredState = "dead",
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Replay all deliveries that match."""
        found = self.list(
            state=state, tenant=tenant, host=host, since=since, kind=kind, limit=2**53
        ).deliveries
        for one in found:
            self.replay(one.job_id, kind=one.kind)
        return len(found)

    def purge(self, job_id: str) -> None:
        """Drop the dead deliveries of a job."""
        job_id = job_id_of(job_id)
        self._take(job_id, [one for one in self._of(job_id) if one.state == "dead"])

    def purge_all(
        self,
        *,
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Drop all dead deliveries that match."""
        found = self.list(
            state="dead", tenant=tenant, host=host, since=since, kind=kind, limit=2**53
        ).deliveries
        for one in found:
            self.purge(one.job_id)
        return len(found)

    def _of(self, job_id: str) -> tuple[UndeliveredResult, ...]:
        return tuple(one for one in self.undelivered if one.job_id == job_id)

    def _take(self, job_id: str, found: Sequence[UndeliveredResult]) -> None:
        if not found:
            raise JobNotFoundError(f"{job_id} has no such delivery")
        for one in found:
            self.undelivered.remove(one)
