"""Stamp and find unacknowledged messages by the broker's own clock, not by a worker's.

kombu writes the worker's time into the index and compares it with another worker's: a worker whose
clock is an hour behind never gives back the messages of a dead one, and one that is an hour ahead
takes away what others are working on. Redis' own TIME is the same for all of them.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

from redis import Redis

TAGS_IN_A_CALL: Final = 1000

# KEYS: the index of unacknowledged messages. ARGV: delivery tags. Returns nothing.
# XX: a message that was acknowledged meanwhile must not come back.
STAMP: Final = """
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
for _, tag in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 'XX', now, tag) end
"""
# KEYS: the index of unacknowledged messages. ARGV: visibility timeout in seconds, most tags.
# Returns the tags without a stamp for as long, the oldest first.
OVERDUE: Final = """
local clock = redis.call('TIME')
local due = tonumber(clock[1]) + tonumber(clock[2]) / 1000000 - tonumber(ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', due, 'LIMIT', 0, ARGV[2])
"""


def index_key(channel: Any) -> str:
    """Name the index of a channel's unacknowledged messages."""
    return f"{channel.global_keyprefix}{channel.unacked_index_key}"


def stamp(client: Redis, key: str, tags: Sequence[str]) -> None:
    """Stamp unacknowledged messages with the broker's present time.

    Args:
        client: A bare client: kombu's prefixed one knows one key of a script only.
        key: From :func:`index_key`.

    Raises:
        RedisError: The broker is away; the stamps stay as they were.
    """
    for start in range(0, len(tags), TAGS_IN_A_CALL):
        client.eval(STAMP, 1, key, *tags[start : start + TAGS_IN_A_CALL])


def list_overdue_tags(client: Redis, key: str, *, timeout_s: float, limit: int | None) -> list[str]:
    """List messages that were not stamped for *timeout_s* seconds, the oldest first.

    Args:
        client: As for :func:`stamp`.
        limit: Most tags to return; ``None`` means all.

    Raises:
        RedisError: The broker is away.
    """
    tags = cast("list[bytes]", client.eval(OVERDUE, 1, key, str(timeout_s), str(limit or -1)))
    return [tag.decode() for tag in tags]
