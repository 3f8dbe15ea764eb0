"""An event stream in memory: each job that becomes final in a fake client writes an event."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from labelyard.errors import EventGroupNotFoundError
from labelyard.events.groups import EventGroup, EventGroups
from labelyard.events.models import EventContent, EventKind, GapContent, event_fields
from labelyard.events.options import GroupStart, filter_json, name_of
from labelyard.events.reading import gap_fields
from labelyard.ledger import Record
from labelyard.ledger.event_stream import ReadEvents, StreamEntry, read_joined


@dataclass
class FakeGroup:
    """A group of consumers, in memory.

    Attributes:
        next: Number of the first event that no consumer got.
        pending: Consumer of each event that is not acknowledged, by the event's id.
        gap: As ``read_events`` returns it; empty if there is none.
    """

    where: str
    next: int
    created_at: float = field(default_factory=time.time)
    pending: dict[str, str] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    gap: list[str] = field(default_factory=list)


class FakeEventLog:
    """The event stream of a fake client, and a source of events for its consumers.

    Attributes:
        entries: All events, the oldest first.
        groups: Groups of consumers, by name.
    """

    def __init__(self) -> None:
        self.entries: list[StreamEntry] = []
        self.groups: dict[str, FakeGroup] = {}

    def add(self, record: Record) -> None:
        """Write the event of a final job."""
        fields = {
            "kind": "job",
            "id": record.job_id,
            "state": record.state,
            "tenant": record.tenant,
            "images": str(record.images),
        }
        if (tag := record.job().tag) is not None:
            fields["tag"] = tag
        if record.result is not None:
            fields["result"] = record.result.model_dump_json()
        event_id = f"{int(time.time() * 1000)}-{len(self.entries) + 1}"
        self.entries.append(StreamEntry(event_id, 1, fields))

    def erase(self, job_id: str) -> None:
        """Empty the events of a job; nobody gets them any more."""
        for place, entry in enumerate(self.entries):
            if entry.fields.get("id") == job_id:
                self.entries[place] = entry._replace(fields={})

    def lose(self, group: str) -> None:
        """Lose the events that *group* has not read, as if they had been trimmed."""
        one = self._group(group)
        lost = len(self.entries) - one.next
        after, one.next = self._position(one), len(self.entries)
        one.gap = [str(len(self.entries)), "trimmed", after, self._position(one), str(lost)]

    def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it."""
        _ = after  # memory loses nothing
        if group not in self.groups:
            if start in ("existing", "resume"):
                raise EventGroupNotFoundError(group)
            self.groups[group] = FakeGroup(where, 0 if start == "oldest" else len(self.entries))
        elif self.groups[group].where != where:
            read_joined(group, ["conflict", self.groups[group].where])
        return self._position(self.groups[group])

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
        """Read events, those first that the consumer or one that left has not acknowledged."""
        _ = claim_after_s, is_claiming
        if group not in self.groups:
            return None
        one, left_out = self.groups[group], 0
        found = [
            entry
            for entry in self.entries
            if entry.event_id in one.pending
            and one.pending[entry.event_id] in (("", consumer) if own_after else ("",))
        ][:limit]
        while len(found) < limit and one.next < len(self.entries):
            entry = self.entries[one.next]
            one.next += 1
            if entry.fields and is_wanted(entry, one.where):
                found.append(entry)
            else:
                left_out += 1
        for entry in found:
            one.pending[entry.event_id] = consumer
            one.deliveries[entry.event_id] = one.deliveries.get(entry.event_id, 0) + 1
        entries = [entry._replace(deliveries=one.deliveries[entry.event_id]) for entry in found]
        return ReadEvents(self._position(one), "", one.gap, entries, left_out)

    def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Return the events that the consumer still holds."""
        return [one for one in event_ids if self._group(group).pending.get(one) == consumer]

    def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""
        self._group(group).pending.pop(event_id, None)

    def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""
        if self._group(group).gap[:1] == [gap_id]:
            self._group(group).gap = []

    def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """Give the consumer's events back."""
        pending = self.groups[group].pending if group in self.groups and is_releasing else {}
        for event_id in [one for one, holder in pending.items() if holder == consumer]:
            pending[event_id] = ""

    def wait(self, position: str, *, for_s: float) -> bool:
        """Return at once: nothing comes while a fake waits."""
        _ = position, for_s
        return False

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _group(self, name: str) -> FakeGroup:
        if name not in self.groups:
            raise EventGroupNotFoundError(name)
        return self.groups[name]

    def _position(self, group: FakeGroup) -> str:
        return self.entries[group.next - 1].event_id if group.next else "0-0"

    def recent(self, *, limit: int) -> list[EventContent]:
        """Return the newest events."""
        return [
            EventContent(**event_fields(one.event_id, one.fields, deliveries=0))
            for one in self.entries[-limit:]
            if one.fields
        ]


class AsyncFakeEventLog:
    """The event stream of a fake client, for its asynchronous consumers."""

    def __init__(self, log: FakeEventLog) -> None:
        self._log = log

    async def join(self, group: str, *, start: str, after: str, where: str) -> str:
        """Make a group or find it."""
        return self._log.join(group, start=start, after=after, where=where)

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
        """Read events."""
        return self._log.read(
            group,
            consumer=consumer,
            limit=limit,
            claim_after_s=claim_after_s,
            is_claiming=is_claiming,
            own_after=own_after,
        )

    async def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> list[str]:
        """Return the events that the consumer still holds."""
        return self._log.hold(group, consumer=consumer, event_ids=event_ids)

    async def ack(self, group: str, event_id: str) -> None:
        """Acknowledge an event."""
        self._log.ack(group, event_id)

    async def ack_gap(self, group: str, gap_id: str) -> None:
        """Acknowledge a gap."""
        self._log.ack_gap(group, gap_id)

    async def leave(self, group: str, *, consumer: str, is_releasing: bool) -> None:
        """Give the consumer's events back."""
        self._log.leave(group, consumer=consumer, is_releasing=is_releasing)

    async def wait(self, position: str, *, for_s: float) -> bool:
        """Return at once."""
        return self._log.wait(position, for_s=for_s)

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class FakeEventGroups(EventGroups):
    """Groups of a fake client."""

    def __init__(self, log: FakeEventLog) -> None:
        self._log = log

    def list(self) -> list[EventGroup]:
        """List the groups, by name."""
        return [
            EventGroup(
                name=name,
                position=self._log._position(one),  # noqa: SLF001 - a part of the fake
                waiting=len(self._log.entries) - one.next,
                pending=len(one.pending),
                consumers=len(set(one.pending.values()) - {""}),
                where={kind: tuple(values) for kind, values in json.loads(one.where).items()},
                created_at=one.created_at,
                used_at=one.created_at,
                gap=GapContent(**gap_fields(one.gap)) if one.gap else None,
            )
            for name, one in sorted(self._log.groups.items())
        ]

    def create(
        self,
        name: str,
        *,
        start: GroupStart = "new",
        tenants: Iterable[str] | None = None,
        kinds: Iterable[EventKind] | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """Make a group."""
        where = filter_json(tenants=tenants, kinds=kinds, tags=tags)
        self._log.join(name_of(name, name="group"), start=start, after="", where=where)

    def delete(self, name: str) -> None:
        """Delete a group."""
        if self._log.groups.pop(name_of(name, name="group"), None) is None:
            raise EventGroupNotFoundError(name)


def is_wanted(entry: StreamEntry, where: str) -> bool:
    """Return whether a filter lets an event through."""
    return all(entry.fields.get(name) in values for name, values in json.loads(where).items())
