"""The event stream as a consumer's calls of the ledger, for threads and for asyncio."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import redis
import redis.asyncio

from labelyard.errors import EventGroupNotFoundError, InvalidMessageError, ServiceConfigError
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.limits import MAX_EVENT_GROUPS
from labelyard.ledger.redis_errors import ledger_errors_as_ours

if TYPE_CHECKING:
    from labelyard.ledger.async_client import AsyncLedger
    from labelyard.ledger.connection import LedgerConnection


class StreamEntry(NamedTuple):
    """An event as the stream holds it."""

    event_id: str
    deliveries: int
    fields: Mapping[str, str]


class ReadEvents(NamedTuple):
    """Answer to a read of events.

    Attributes:
        position: Last event that the group gave to a consumer.
        own_after: Where the pending events of this consumer go on; empty if there are no more.
        gap: Id, reason, last event before it, last event in it, number of lost ones; or empty.
        left_out: Events that the group's filter left out.
    """

    position: str
    own_after: str
    gap: Sequence[str]
    entries: Sequence[StreamEntry]
    left_out: int


class EventSource(Protocol):
    """Calls that a consumer makes, for threads.

    Each raises LedgerUnavailableError when the ledger gives no answer.
    """

    def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it; return its position."""

    def read(
        self,
        group: str,
        *,
        consumer: str,
        limit: int,
        claim_after_s: float,
        is_claiming: bool,
        own_after: str,
    ) -> ReadEvents | None:
        """Read events; ``None`` if there is no such group."""

    def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Renew the hold on events; return those that are still held."""

    def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""

    def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""

    def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """End a consumer's part in its group."""

    def wait(self, position: str, *, for_s: float) -> bool:
        """Wait for an event behind *position*; return whether there is one."""

    def close(self) -> None:
        """Close the connection that waits."""


class AsyncEventSource(Protocol):
    """Calls that a consumer makes, for asyncio; see :class:`EventSource`."""

    async def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it; return its position."""

    async def read(
        self,
        group: str,
        *,
        consumer: str,
        limit: int,
        claim_after_s: float,
        is_claiming: bool,
        own_after: str,
    ) -> ReadEvents | None:
        """Read events; ``None`` if there is no such group."""

    async def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Renew the hold on events; return those that are still held."""

    async def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""

    async def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""

    async def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """End a consumer's part in its group."""

    async def wait(self, position: str, *, for_s: float) -> bool:
        """Wait for an event behind *position*; return whether there is one."""

    async def close(self) -> None:
        """Close the connection that waits."""


class LedgerEvents:
    """The event stream of a ledger, for one consumer in a thread.

    Args:
        waiting: Client of its own, because a wait keeps a connection busy.
    """

    def __init__(self, ledger: "LedgerConnection", waiting: "redis.Redis") -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)

    def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it; return its position.

        Raises:
            EventGroupNotFoundError: There is none, and *start* makes none.
            InvalidMessageError: It has another filter, or there are too many groups.
            ServiceConfigError: The workers' settings switch events off.
        """
        command = self._commands.join(group, start=start, after=after, where=where)
        return read_joined(group, self._ledger.run(command))

    def read(self, group: str, **arguments: Any) -> ReadEvents | None:
        """Read events; ``None`` if there is no such group."""
        return read_read(self._ledger.run(self._commands.read(group, **arguments)))

    def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Renew the hold on events; return those that are still held."""
        command = self._commands.hold(group, consumer=consumer, event_ids=event_ids)
        return list(self._ledger.run(command))

    def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""
        with ledger_errors_as_ours():
            self._ledger.client.xack(self._ledger.keys.events, group, event_id)

    def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""
        self._ledger.run(self._commands.ack_gap(group, gap_id=gap_id))

    def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """End a consumer's part in its group."""
        command = self._commands.leave(group, consumer=consumer, is_releasing=is_releasing)
        self._ledger.run(command)

    def wait(self, position: str, *, for_s: float) -> bool:
        """Wait for an event behind *position*; return whether there is one."""
        with ledger_errors_as_ours():
            found = self._waiting.xread(
                {self._ledger.keys.events: position}, count=1, block=block_ms(for_s)
            )
        return bool(found)

    def close(self) -> None:
        """Close the connection that waits."""
        self._waiting.close()


class AsyncLedgerEvents:
    """The event stream of a ledger, for one consumer in an event loop."""

    def __init__(self, ledger: "AsyncLedger", waiting: "redis.asyncio.Redis") -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)

    async def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it; see :meth:`LedgerEvents.join`."""
        command = self._commands.join(group, start=start, after=after, where=where)
        return read_joined(group, await self._ledger.run(command))

    async def read(self, group: str, **arguments: Any) -> ReadEvents | None:
        """Read events; ``None`` if there is no such group."""
        return read_read(await self._ledger.run(self._commands.read(group, **arguments)))

    async def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Renew the hold on events; return those that are still held."""
        command = self._commands.hold(group, consumer=consumer, event_ids=event_ids)
        return list(await self._ledger.run(command))

    async def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""
        with ledger_errors_as_ours():
            await self._ledger.client.xack(self._ledger.keys.events, group, event_id)

    async def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""
        await self._ledger.run(self._commands.ack_gap(group, gap_id=gap_id))

    async def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """End a consumer's part in its group."""
        command = self._commands.leave(group, consumer=consumer, is_releasing=is_releasing)
        await self._ledger.run(command)

    async def wait(self, position: str, *, for_s: float) -> bool:
        """Wait for an event behind *position*; return whether there is one."""
        with ledger_errors_as_ours():
            found = await self._waiting.xread(
                {self._ledger.keys.events: position}, count=1, block=block_ms(for_s)
            )
        return bool(found)

    async def close(self) -> None:
        """Close the connection that waits."""
        await self._waiting.aclose()


def block_ms(for_s: float) -> int:
    """Return the argument of BLOCK; 0 would mean for ever."""
    return max(1, int(for_s * 1000))


def read_joined(group: str, answer: Sequence[str]) -> str:
    """Read the answer of ``join_events``.

    Raises:
        EventGroupNotFoundError: There is no such group.
        InvalidMessageError: It has another filter, or there are too many groups.
        ServiceConfigError: The workers' settings switch events off.
    """
    verdict, *rest = answer
    match verdict:
        case "joined":
            return rest[0]
        case "conflict":
            raise InvalidMessageError(
                f"group {group} has another filter, {rest[0]}: choose another name, or delete it "
                f"with labelyard event-groups delete {group}"
            )
        case "full":
            raise InvalidMessageError(
                f"group: there are {MAX_EVENT_GROUPS} groups, as many as are allowed: delete one "
                "with labelyard event-groups delete"
            )
        case "off":
            raise ServiceConfigError(
                "LABELYARD_EVENTS_MAX_ENTRIES: it is 0 for the workers, so that no events are written"
            )
        case _:
            raise EventGroupNotFoundError(group)


def read_read(answer: Sequence[Any]) -> ReadEvents | None:
    """Read the answer of ``read_events``."""
    if answer[0] != "read":
        return None
    _, position, own_after, gap, entries, left_out = answer
    return ReadEvents(
        position=position,
        own_after=own_after,
        gap=gap,
        entries=[
            StreamEntry(event_id, int(deliveries), pairs(fields))
            for event_id, deliveries, fields in entries
        ],
        left_out=int(left_out),
    )


def pairs(fields: Sequence[str]) -> dict[str, str]:
    """Read names and values that alternate."""
    return dict(zip(fields[::2], fields[1::2], strict=True))
