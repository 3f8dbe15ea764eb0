"""Events and gaps as consumers get them."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from pydantic import ValidationError

from labelyard.errors import ResultUnreadableError
from labelyard.messages import Result

EventKind = Literal["job", "run", "shard"]
GapReason = Literal["trimmed", "stream_lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventContent:
    """Content of an event.

    Attributes:
        event_id: ``MILLISECONDS-NUMBER``; later events have greater numbers. A consumer that
            keeps the last one that it handled can pass it as ``after``.
        kind: Which record became final.
        id: The record's id: for a job, ``client.result(event.id)`` reads its result.
        state: The final state.
        tenant: Tenant of the record.
        at: When it became final, in seconds since the epoch by Redis' clock.
        tag: Tag of the job; empty if it has none.
        parent: Id of the run that a shard belongs to; empty for others.
        uri: Where the output of a run or a shard is; empty for others.
        images: Number of images.
        deliveries: How often the event was given to a consumer, this time included. One that
            keeps rising belongs to an event that no consumer can handle.
        result_bytes: Length of a result that is too long for the event; 0 if there is none.
    """

    event_id: str
    kind: EventKind
    id: str
    state: str
    tenant: str
    at: float
    tag: str = ""
    parent: str = ""
    uri: str = ""
    images: int = 0
    deliveries: int = 1
    result_bytes: int = 0
    _result: str = field(default="", repr=False)

    @property
    def result(self) -> Result | None:
        """The job's result, if it is short enough for the event.

        Raises:
            ResultUnreadableError: It is not a result that this version can read.
        """
        if not self._result or self.kind != "job":
            return None
        try:
            return Result.model_validate_json(self._result)
        except ValidationError as error:
            raise ResultUnreadableError(f"{self.id}: {error.error_count()} faults") from error

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """The summary of a run, or of a shard, if it is short enough for the event.

        Raises:
            ResultUnreadableError: It is not a JSON object.
        """
        if not self._result or self.kind == "job":
            return None
        try:
            found = json.loads(self._result)
        except ValueError as error:
            raise ResultUnreadableError(f"{self.id}: {error}") from error
        if not isinstance(found, dict):
            raise ResultUnreadableError(f"{self.id}: not a JSON object")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GapContent:
    """Content of a gap: the events that a group will never get.

    Attributes:
        gap_id: Name of the gap in its group.
        reason: ``trimmed``: they were older or more than the stream keeps, and no consumer had
            handled them. ``stream_lost``: the ledger's Redis lost its data, or was restored from
            an older state.
        lost: Number of lost events; ``None`` if it is not known.
        after_id: Last event before the gap.
        before_id: The last event of the gap is not after this one.
        since: Records that became final from here on may be missing; seconds since the epoch.
        until: Records that became final after this are not missing.
    """

    gap_id: str
    reason: GapReason
    lost: int | None
    after_id: str
    before_id: str
    kind: Literal["gap"] = "gap"

    @property
    def since(self) -> float:
        """When the last event before the gap was written."""
        return at_of(self.after_id)

    @property
    def until(self) -> float:
        """When the last event of the gap was written, at the latest."""
        return at_of(self.before_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(EventContent):
    """A record that became final."""

    _acknowledge: Callable[[str], None] = field(repr=False, compare=False)

    def ack(self) -> None:
        """Acknowledge the event: its group does not get it again. Safe to repeat.

        Raises:
            LedgerUnavailableError: The ledger gave no answer; the event may come again.
        """
        self._acknowledge(self.event_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventGap(GapContent):
    """Events that the group will never get, because they were gone before they were handled."""

    _acknowledge: Callable[[str], None] = field(repr=False, compare=False)

    def ack(self) -> None:
        """Acknowledge the gap: its group does not get it again. Safe to repeat."""
        self._acknowledge(self.gap_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncEvent(EventContent):
    """A record that became final; see :class:`Event`."""

    _acknowledge: Callable[[str], Awaitable[None]] = field(repr=False, compare=False)

    async def ack(self) -> None:
        """Acknowledge the event; see :meth:`Event.ack`."""
        await self._acknowledge(self.event_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncEventGap(GapContent):
    """Events that the group will never get; see :class:`EventGap`."""

    _acknowledge: Callable[[str], Awaitable[None]] = field(repr=False, compare=False)

    async def ack(self) -> None:
        """Acknowledge the gap; see :meth:`EventGap.ack`."""
        await self._acknowledge(self.gap_id)


class EventFields(TypedDict):
    """Arguments of an event besides its acknowledgement."""

    event_id: str
    kind: EventKind
    id: str
    state: str
    tenant: str
    at: float
    tag: str
    parent: str
    uri: str
    images: int
    deliveries: int
    result_bytes: int
    _result: str


class GapFields(TypedDict):
    """Arguments of a gap besides its acknowledgement."""

    gap_id: str
    reason: GapReason
    lost: int | None
    after_id: str
    before_id: str


def event_fields(event_id: str, entry: Mapping[str, Any], *, deliveries: int) -> EventFields:
    """Read an entry of the stream."""
    return {
        "event_id": event_id,
        "kind": entry.get("kind", "job"),
        "id": entry.get("id", ""),
        "state": entry.get("state", ""),
        "tenant": entry.get("tenant", ""),
        "at": at_of(event_id),
        "tag": entry.get("tag", ""),
        "parent": entry.get("parent", ""),
        "uri": entry.get("uri", ""),
        "images": _number(entry.get("images")),
        "deliveries": deliveries,
        "result_bytes": _number(entry.get("result_bytes")),
        "_result": entry.get("result", ""),
    }


def at_of(event_id: str) -> float:
    """Return when an event was written, in seconds since the epoch."""
    return _number(event_id.partition("-")[0]) / 1000


def number_of(event_id: str) -> int:
    """Return how many events had been written with this one."""
    return _number(event_id.partition("-")[2])


def _number(text: Any) -> int:
    return int(text) if str(text).isascii() and str(text).isdecimal() else 0
