"""Groups that read the event stream: listed, made and deleted."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from labelyard.errors import EventGroupNotFoundError
from labelyard.events.models import EventKind, GapContent, number_of
from labelyard.events.options import GroupStart, filter_json, name_of
from labelyard.events.reading import gap_fields
from labelyard.ledger.connection import LedgerConnection
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.event_stream import read_joined
from labelyard.ledger.redis_errors import ledger_errors_as_ours

GAP_FIELDS = ("gap_id", "gap_reason", "gap_after", "gap_before", "gap_lost")


@dataclass(frozen=True, slots=True)
class EventGroup:
    """A group that reads the event stream.

    Attributes:
        name: Its name.
        position: Last event that was given to one of its consumers.
        waiting: Number of later events, those included that its filter will leave out.
        pending: Number of events that a consumer got and did not acknowledge yet.
        consumers: Number of its consumers, those included that died within the last hour.
        where: Its filter: names of ``kind``, ``tag`` and ``tenant``; empty if it gets all events.
        created_at: When it was made, in seconds since the epoch.
        used_at: When a consumer last read.
        gap: Events that it has lost, until a consumer acknowledges the gap.
    """

    name: str
    position: str
    waiting: int
    pending: int
    consumers: int
    where: Mapping[str, tuple[str, ...]]
    created_at: float
    used_at: float
    gap: GapContent | None


class EventGroups:
    """Groups that read the event stream.

    Every method raises LedgerUnavailableError when the ledger gives no answer.
    """

    def __init__(self, ledger: LedgerConnection) -> None:
        self._ledger = ledger
        self._commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)

    def list(self) -> list[EventGroup]:
        """List the groups, by name."""
        keys = self._ledger.keys
        with ledger_errors_as_ours():
            used: Any = self._ledger.client.zrange(keys.event_groups, 0, -1, withscores=True)
            with self._ledger.client.pipeline(transaction=False) as pipeline:
                pipeline.hget(keys.event_state, "last")
                pipeline.xinfo_groups(keys.events)
                for name, _ in used:
                    pipeline.hgetall(keys.event_group(name))
                last, in_stream, *records = pipeline.execute(raise_on_error=False)
        counts = {} if isinstance(in_stream, ResponseError) else {g["name"]: g for g in in_stream}
        return sorted(
            (
                _group(name, record, counts.get(name, {}), last=last or "", used_at=used_at)
                for (name, used_at), record in zip(used, records, strict=True)
                if isinstance(record, dict) and record
            ),
            key=lambda group: group.name,
        )

    def create(
        self,
        name: str,
        *,
        start: GroupStart = "new",
        tenants: Iterable[str] | None = None,
        kinds: Iterable[EventKind] | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """Make a group before its first consumer comes; one that exists is left as it is.

        Args:
            start: ``new``: it gets what becomes final from now on. ``oldest``: all that is kept.
            tenants: As those of :class:`labelyard.events.options.EventOptions`.
            kinds: The same.
            tags: The same.

        Raises:
            InvalidMessageError: It has another filter, or there are too many groups.
        """
        command = self._commands.join(
            name_of(name, name="group"),
            start="oldest" if start == "oldest" else "new",
            after="",
            where=filter_json(tenants=tenants, kinds=kinds, tags=tags),
        )
        read_joined(name, self._ledger.run(command))

    def delete(self, name: str) -> None:
        """Delete a group with its position and its pending events.

        A consumer that reads with it gets EventGroupNotFoundError.

        Raises:
            EventGroupNotFoundError: There is no such group.
        """
        if not self._ledger.run(self._commands.delete(name_of(name, name="group"))):
            raise EventGroupNotFoundError(name)


def _group(
    name: str,
    record: Mapping[str, str],
    counts: Mapping[str, Any],
    *,
    last: str,
    used_at: float,
) -> EventGroup:
    position = record.get("position", "")
    gap = [record.get(field, "") for field in GAP_FIELDS]
    where = json.loads(record.get("filter", "{}"))
    return EventGroup(
        name=name,
        position=position,
        waiting=max(0, number_of(last) - number_of(position)),
        pending=int(counts.get("pending", 0)),
        consumers=int(counts.get("consumers", 0)),
        where={kind: tuple(values) for kind, values in where.items()},
        created_at=float(record.get("created_at", 0)),
        used_at=used_at,
        gap=GapContent(**gap_fields(gap)) if gap[0] else None,
    )
