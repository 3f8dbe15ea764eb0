"""Stores of a client besides jobs, for asyncio: calls run in threads."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

from labelyard.events.groups import EventGroup, EventGroups
from labelyard.events.models import EventKind
from labelyard.events.options import GroupStart
from labelyard.ledger import Record
from labelyard.ledger.dead_letters import DeadLetters
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.ledger.undelivered import DeliveryKind, UndeliveredList, UndeliveredState
from labelyard.ledger.webhooks import Webhooks
from labelyard.tenants import TenantPolicy, Tenants, TenantUsage


class AsyncDeadLetters:
    """Jobs that killed or hung their workers; see :class:`labelyard.ledger.dead_letters.DeadLetters`."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def ids(self, *, limit: int = 1000) -> list[str]:
        """List the ids, those that died first at the front."""
        return await asyncio.to_thread(self._letters.ids, limit=limit)

    async def count(self) -> int:
        """Count the dead letters."""
        return await asyncio.to_thread(self._letters.count)

    async def records(self, *, limit: int = 1000) -> list[Record]:
        """Read the records, those that died first at the front."""
        return await asyncio.to_thread(self._letters.records, limit=limit)

    async def replay(self, job_id: str) -> None:
        """Run a dead letter again, under its old id, as if it had never run."""
        await asyncio.to_thread(self._letters.replay, job_id)

    async def purge(self, job_id: str) -> None:
        """Drop a dead letter for good; its failed result stays readable for its TTL."""
        await asyncio.to_thread(self._letters.purge, job_id)


class AsyncSetAside:
    """Messages that no worker could run; see :class:`labelyard.ledger.set_aside.SetAside`."""

    def __init__(self, messages: SetAside) -> None:
        self._messages = messages

    async def add(self, message: SetAsideMessage) -> None:
        """Keep *message*; beyond the bounds the oldest are dropped and counted."""
        await asyncio.to_thread(self._messages.add, message)

    async def count(self) -> int:
        """Count the messages that are kept."""
        return await asyncio.to_thread(self._messages.count)

    async def dropped(self) -> int:
        """Count the messages that were dropped for newer ones."""
        return await asyncio.to_thread(self._messages.dropped)

    async def messages(self, *, limit: int = 1000) -> list[SetAsideMessage]:
        """Read the messages, the newest first."""
        return await asyncio.to_thread(self._messages.messages, limit=limit)

    async def find(self, entry_id: str) -> SetAsideMessage:
        """Read one message."""
        return await asyncio.to_thread(self._messages.find, entry_id)

    async def remove(self, entry_ids: Sequence[str]) -> list[str]:
        """Forget messages; returns the ids of those that were kept."""
        return await asyncio.to_thread(self._messages.remove, entry_ids)

    async def replay(self, entry_id: str) -> None:
        """Send a message again to the queue that brought it, and forget the entry."""
        await asyncio.to_thread(self._messages.replay, entry_id)


class AsyncTenants:
    """Policies of the tenants; see :class:`labelyard.tenants.Tenants`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def set(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        max_open_images: int | None = None,
        images_per_s: float | None = None,
        prompts_per_s: float | None = None,
    ) -> TenantPolicy:
        """Replace the policy of *tenant*, and write all weights to the broker."""
        return await asyncio.to_thread(
            self._tenants.set,
            tenant,
            weight=weight,
            max_open_images=max_open_images,
            images_per_s=images_per_s,
            prompts_per_s=prompts_per_s,
        )

    async def get(self, tenant: str) -> TenantPolicy:
        """Read the policy that holds for *tenant*."""
        return await asyncio.to_thread(self._tenants.get, tenant)

    async def list(self) -> dict[str, TenantPolicy]:
        """Read the policies of all tenants that have one, by name."""
        return await asyncio.to_thread(self._tenants.list)

    async def reset(self, tenant: str) -> None:
        """Drop the policy of *tenant*, if it has one."""
        await asyncio.to_thread(self._tenants.reset, tenant)

    async def usage(self, tenant: str) -> TenantUsage:
        """Read the use that *tenant* makes of its quotas."""
        return await asyncio.to_thread(self._tenants.usage, tenant)


class AsyncWebhooks:
    """Webhooks that have not arrived; see :class:`labelyard.ledger.webhooks.Webhooks`."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def list(
        self,
        *,
        state: UndeliveredState | None = None,
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
        limit: int = 100,
    ) -> UndeliveredList:
        """List deliveries that have not arrived: the newest dead letters, then those due soonest."""
        return await asyncio.to_thread(
            self._webhooks.list,
            state=state,
            tenant=tenant,
            host=host,
            since=since,
            kind=kind,
            limit=limit,
        )

    async def replay(self, job_id: str, *, kind: DeliveryKind = "webhook") -> None:
        """Have the webhook of a job called now, and retried for a day as that of a new result."""
        await asyncio.to_thread(self._webhooks.replay, job_id, kind=kind)

    async def replay_all(
        self,
        *,
        state: UndeliveredState = "dead",
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Have all webhooks in *state* called now, for example once their receiver is back."""
        return await asyncio.to_thread(
            self._webhooks.replay_all,
            state=state,
            tenant=tenant,
            host=host,
            since=since,
            kind=kind,
        )

    async def purge(self, job_id: str) -> None:
        """Drop the dead deliveries of a job for good; its result stays readable for its TTL."""
        await asyncio.to_thread(self._webhooks.purge, job_id)

    async def purge_all(
        self,
        *,
        tenant: str | None = None,
        host: str | None = None,
        since: datetime | None = None,
        kind: DeliveryKind = "webhook",
    ) -> int:
        """Drop all dead deliveries that match, and return their number."""
        return await asyncio.to_thread(
            self._webhooks.purge_all, tenant=tenant, host=host, since=since, kind=kind
        )


class AsyncEventGroups:
    """Groups that read the event stream; see :class:`labelyard.events.groups.EventGroups`."""

    def __init__(self, groups: EventGroups) -> None:
        self._groups = groups

    async def list(self) -> list[EventGroup]:
        """List the groups, by name."""
        return await asyncio.to_thread(self._groups.list)

    async def create(
        self,
        name: str,
        *,
        start: GroupStart = "new",
        tenants: Iterable[str] | None = None,
        kinds: Iterable[EventKind] | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """Make a group before its first consumer comes; one that exists is left as it is."""
        await asyncio.to_thread(
            self._groups.create, name, start=start, tenants=tenants, kinds=kinds, tags=tags
        )

    async def delete(self, name: str) -> None:
        """Delete a group with its position and its pending events."""
        await asyncio.to_thread(self._groups.delete, name)
