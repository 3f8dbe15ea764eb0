"""Options of a consumer of events, checked once."""

import json
import math
import re
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import getpid
from typing import Any, Final, Literal, TypedDict, Unpack

from labelyard.arguments import listed, wait_s
from labelyard.errors import InvalidMessageError
from labelyard.events.models import EventKind

Start = Literal["new", "oldest", "existing"]
GroupStart = Literal["new", "oldest"]
Acknowledgement = Literal["auto", "manual"]
STARTS: Final = ("new", "oldest", "existing")
KINDS: Final = ("job", "run", "shard")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
EVENT_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
MAX_PREFETCH: Final = 1000
MAX_FILTER_VALUES: Final = 100
SHORTEST_CLAIM_S: Final = 0.05
LONGEST_CLAIM_S: Final = 7 * 86_400.0


class EventOptions(TypedDict, total=False):
    """Options of a consumer of events.

    Attributes:
        consumer: Name of this consumer in its group, unlike that of any other that runs. One that
            comes back under its name gets its pending events at once. Without one a new name is
            made.
        start: Where a group begins that does not exist yet: ``new`` (default), ``oldest``, or
            ``existing``, which makes no group but raises EventGroupNotFoundError.
        after: ``event_id`` of the last event that was handled, if the consumer keeps it outside
            the ledger: a ledger that lost its data since then is recognised, and the new group
            begins with a gap. Not used while the group exists.
        tenants: Only events of these tenants. A group has one filter, that of its first consumer.
        kinds: Only events of these kinds: ``job``, ``run``, ``shard``.
        tags: Only events of jobs with one of these tags.
        ack: ``auto`` (default): the event is acknowledged when the loop comes back for the next
            one, and not if its body raises or leaves the loop. ``manual``: by ``event.ack()`` alone.
        claim_after_s: Seconds after which a pending event of one consumer is given to another one;
            more than it takes to handle an event. Default 60.
        prefetch: Most events that are read at once. Default 16.
        timeout_s: Seconds without an event after which the loop ends. Without it, it never does.
    """

    consumer: str
    start: Start
    after: str
    tenants: Iterable[str]
    kinds: Iterable[EventKind]
    tags: Iterable[str]
    ack: Acknowledgement
    claim_after_s: float
    prefetch: int
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Options of a consumer, after their checks; see :class:`EventOptions`.

    Attributes:
        where: The filter as JSON, as the group keeps it.
        is_auto: Whether the loop acknowledges.
    """

    group: str
    consumer: str
    start: Start = "new"
    after: str = ""
    where: str = "{}"
    is_auto: bool = True
    claim_after_s: float = 60.0
    prefetch: int = 16
    timeout_s: float = field(default=math.inf)

    @classmethod
    def checked(cls, group: str, **options: Unpack[EventOptions]) -> "ConsumerOptions":
        """Check the options of a consumer.

        Raises:
            InvalidMessageError: One of them is not as it should be; the text names it.
        """
        if unknown := sorted(options.keys() - EventOptions.__annotations__.keys()):
            raise InvalidMessageError(f"{unknown[0]}: there is no such option of events")
        ack = _one_of(options.get("ack", "auto"), ("auto", "manual"), name="ack")
        timeout_s = options.get("timeout_s")
        return cls(
            group=name_of(group, name="group"),
            consumer=name_of(options.get("consumer") or new_consumer_name(), name="consumer"),
            start=_one_of(options.get("start", "new"), STARTS, name="start"),
            after=_event_id(options.get("after", "")),
            where=filter_json(
                tenants=options.get("tenants"),
                kinds=options.get("kinds"),
                tags=options.get("tags"),
            ),
            is_auto=ack == "auto",
            claim_after_s=_claim_after_s(options.get("claim_after_s", 60.0)),
            prefetch=_prefetch(options.get("prefetch", 16)),
            timeout_s=math.inf if timeout_s is None else wait_s(timeout_s),
        )


def name_of(value: Any, *, name: str) -> str:
    """Return the name of a group or of a consumer.

    Raises:
        InvalidMessageError: It has characters that are not allowed, or too many.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidMessageError(
            f"{name}: write 1 to 128 letters, digits, dots, hyphens or underscores"
        )
    return value


def new_consumer_name() -> str:
    """Make a unique name for a consumer, with the machine and the process that it runs in."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64].lstrip(".-") or "host"
    return f"{host}-{getpid()}-{uuid.uuid4().hex[:8]}"


def filter_json(
    *,
    tenants: Iterable[str] | None,
    kinds: Iterable[str] | None,
    tags: Iterable[str] | None,
) -> str:
    """Write a filter as its group keeps it: equal filters give equal text.

    Raises:
        InvalidMessageError: It is not a list of names.
    """
    where = {
        "kind": _values(kinds, name="kinds"),
        "tag": _values(tags, name="tags"),
        "tenant": _values(tenants, name="tenants"),
    }
    for kind in where["kind"] or ():
        _one_of(kind, KINDS, name="kinds")
    return json.dumps({name: values for name, values in where.items() if values is not None})


def _values(values: Any, *, name: str) -> list[str] | None:
    if values is None:
        return None
    found = listed(values, name=name)
    if not found or len(found) > MAX_FILTER_VALUES:
        raise InvalidMessageError(f"{name}: write 1 to {MAX_FILTER_VALUES} names, or leave it out")
    if not all(isinstance(value, str) and 0 < len(value) <= 256 for value in found):
        raise InvalidMessageError(f"{name}: write names of 1 to 256 characters")
    return sorted(set(found))


def _one_of(value: Any, known: tuple[str, ...], *, name: str) -> Any:
    if value not in known:
        raise InvalidMessageError(f"{name}: write {', '.join(known[:-1])} or {known[-1]}")
    return value


def _event_id(value: Any) -> str:
    if value and not (isinstance(value, str) and EVENT_ID.fullmatch(value)):
        raise InvalidMessageError("after: write the event_id of an event")
    return value or ""


def _claim_after_s(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not SHORTEST_CLAIM_S <= value <= LONGEST_CLAIM_S:
        raise InvalidMessageError(
            f"claim_after_s: write seconds from {SHORTEST_CLAIM_S} to {LONGEST_CLAIM_S:.0f}"
        )
    return float(value)


def _prefetch(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PREFETCH:
        raise InvalidMessageError(f"prefetch: write a whole number from 1 to {MAX_PREFETCH}")
    return value
