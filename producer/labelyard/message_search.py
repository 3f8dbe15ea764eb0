"""Find the message of one job in a broker on Redis, within bounds, in one consistent look."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from labelyard.outgoing import PUBLISHED_AT_HEADER
from labelyard.tenant_lines.counts import Evaluates
from labelyard.tenant_lines.scripts import SCRIPTS

#: Bounds of one search. The script holds up Redis while it runs: 10 to 20 ms at these bounds.
MAX_SEARCHED: Final = 2000
MAX_SEARCHED_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """One message of a job in the broker.

    Attributes:
        place: ``queued``; or ``unacknowledged``: a worker claimed it and has not acknowledged it.
        queue: Queue that holds it; empty if it is unacknowledged.
        ahead: Number of messages of its list, or of its tenant's line, that are claimed before it.
        held_for_s: Seconds since a worker claimed it or last renewed its visibility.
        line: Tenant whose line it waits in; empty if it is not sorted by tenant.
        lines_ahead: Number of tenants whose turn comes before that line's.
        next_line: Tenant whose turn it is.
    """

    place: Literal["queued", "unacknowledged"]
    queue: str = ""
    ahead: int = 0
    held_for_s: float = 0.0
    line: str = ""
    lines_ahead: int = 0
    next_line: str = ""


@dataclass(frozen=True, slots=True)
class MessageSearch:
    """One job's messages as the broker shows them.

    Attributes:
        can_search: Whether the broker lets its messages be looked at: Redis does, RabbitMQ does not.
        messages: Messages of the job that were found.
        searched: Number of messages that were searched.
        cut_in: Queue in which the bounds ended the search, ``unacknowledged`` for the messages that
            workers hold; empty if everything was searched.
        last_published_at: When the last message that was searched in that queue was published;
            messages behind it are later ones. ``None`` if it is not known.
        lengths: Number of queued messages, by queue.
    """

    can_search: bool
    messages: tuple[FoundMessage, ...] = ()
    searched: int = 0
    cut_in: str = ""
    last_published_at: float | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def held(self) -> FoundMessage | None:
        """The message that a worker holds unacknowledged, if one was found."""
        return next((one for one in self.messages if one.place == "unacknowledged"), None)

    @property
    def queued(self) -> FoundMessage | None:
        """The message that waits in a queue, if one was found."""
        return next((one for one in self.messages if one.place == "queued"), None)


def search_redis(
    client: Evaluates, job_id: str, *, unacked: str, lists: Mapping[str, str], tenant: str
) -> MessageSearch:
    """Search the unacknowledged messages and *lists* for the message of a job.

    Args:
        client: Client that does not decode: a message need not be UTF-8.
        unacked: kombu's hash of unacknowledged messages.
        lists: Name of the queue that each list belongs to; the job's own queue first.
        tenant: Tenant whose line in each list is searched before the other lines.
    """
    names = list(lists.values())
    keys = (unacked, f"{unacked}_index", *lists)
    bounds = (MAX_SEARCHED, MAX_SEARCHED_BYTES)
    arguments = (json.dumps(job_id), *bounds, tenant)
    hits, searched, cut, last = client.eval(SCRIPTS["search"], len(keys), *keys, *arguments)
    return MessageSearch(
        can_search=True,
        messages=tuple(_read_hit(hit, names) for hit in hits),
        searched=searched,
        cut_in="" if cut < 0 else names[cut - 1] if cut else "unacknowledged",
        last_published_at=_published_at(last),
    )


def _read_hit(hit: Sequence[Any], names: Sequence[str]) -> FoundMessage:
    place, number, now, line, before, first = hit
    if place == 0:
        return FoundMessage("unacknowledged", held_for_s=max(0.0, float(now) - float(number)))
    return FoundMessage(
        "queued",
        queue=names[place - 1],
        ahead=int(number),
        line=line.decode(errors="replace"),
        lines_ahead=before,
        next_line=first.decode(errors="replace"),
    )


def _published_at(message: bytes) -> float | None:
    try:
        at = float(json.loads(message)["headers"][PUBLISHED_AT_HEADER])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return at if math.isfinite(at) else None
