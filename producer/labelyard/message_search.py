"""Find the message of one job in a broker on Redis, within bounds, in one consistent look."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from labelyard.outgoing import PUBLISHED_AT_HEADER

#: Bounds of one search. The script holds up Redis while it runs: 10 to 20 ms at these bounds.
MAX_SEARCHED: Final = 2000
MAX_SEARCHED_BYTES: Final = 4 * 1024 * 1024

# Find the messages of a job. One script, so that a message that is claimed meanwhile is not missed.
# KEYS: the unacknowledged messages, their index by time, then lists, the likeliest first.
# ARGV: the job's id between quotes, most messages, most bytes.
# Returns {hits, searched, place at which the bounds ended the search or -1, the last message that
#   was searched there}.
#   A hit is {place, number, now}: place 0 is an unacknowledged message, with the time at which it
#   was claimed or last renewed; place n is list n, with the number of messages claimed before it.
SEARCH: Final = """
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local id, left, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local hits, searched, cut, last = {}, 0, -1, ''
local CHUNK = 10

local function names_job(message)
  searched, left, bytes = searched + 1, left - 1, bytes - #message
  return string.find(message, id, 1, true)
end

local at = 0
for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], 0, left)) do
  if left <= 0 or bytes <= 0 then cut = 0 break end
  local message = redis.call('HGET', KEYS[1], tag)
  if message and names_job(message) then
    hits[#hits + 1] = {0, redis.call('ZSCORE', KEYS[2], tag), now}
  end
end
for place = 3, #KEYS do
  local length, ahead = redis.call('LLEN', KEYS[place]), 0
  while ahead < length do
    if left <= 0 or bytes <= 0 then
      if cut == -1 then
        cut = place - 2
        if ahead > 0 then last = redis.call('LINDEX', KEYS[place], -ahead) end
      end
      break
    end
    local chunk = redis.call('LRANGE', KEYS[place], -ahead - CHUNK, -ahead - 1)
    for i = #chunk, 1, -1 do
      if names_job(chunk[i]) then hits[#hits + 1] = {place - 2, tostring(ahead), now} end
      ahead = ahead + 1
    end
  end
end
return {hits, searched, cut, last}
"""


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """One message of a job in the broker.

    Attributes:
        place: ``queued``; or ``unacknowledged``: a worker claimed it and has not acknowledged it.
        queue: Queue that holds it; empty if it is unacknowledged.
        ahead: Number of messages of its list that are claimed before it.
        held_for_s: Seconds since a worker claimed it or last renewed its visibility.
    """

    place: Literal["queued", "unacknowledged"]
    queue: str = ""
    ahead: int = 0
    held_for_s: float = 0.0


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


class _Evaluates(Protocol):
    """The one method of a Redis client that a search needs."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""


def search_redis(
    client: _Evaluates, job_id: str, *, unacked: str, lists: Mapping[str, str]
) -> MessageSearch:
    """Search the unacknowledged messages and *lists* for the message of a job.

    Args:
        client: Client that does not decode: a message need not be UTF-8.
        unacked: kombu's hash of unacknowledged messages.
        lists: Name of the queue that each list belongs to; the job's own queue first.
    """
    names = list(lists.values())
    keys = (unacked, f"{unacked}_index", *lists)
    bounds = (MAX_SEARCHED, MAX_SEARCHED_BYTES)
    hits, searched, cut, last = client.eval(SEARCH, len(keys), *keys, json.dumps(job_id), *bounds)
    return MessageSearch(
        can_search=True,
        messages=tuple(_read_hit(hit, names) for hit in hits),
        searched=searched,
        cut_in="" if cut < 0 else names[cut - 1] if cut else "unacknowledged",
        last_published_at=_published_at(last),
    )


def _read_hit(hit: Sequence[Any], names: Sequence[str]) -> FoundMessage:
    place, number, now = hit
    if place == 0:
        return FoundMessage("unacknowledged", held_for_s=max(0.0, float(now) - float(number)))
    return FoundMessage("queued", queue=names[place - 1], ahead=int(number))


def _published_at(message: bytes) -> float | None:
    try:
        at = float(json.loads(message)["headers"][PUBLISHED_AT_HEADER])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return at if math.isfinite(at) else None
