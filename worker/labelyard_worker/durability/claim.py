"""The claim of a message as one Redis script, and what is known after an empty answer."""

from collections.abc import Iterable
from hashlib import sha1
from time import monotonic
from typing import Any

from kombu.exceptions import KombuError
from redis import Redis

# What nobody can read is kept here for a look at it, bounded in number and in time.
MALFORMED_KEY = "labelyard.malformed"
MALFORMED_MAX = 10_000
MALFORMED_TTL_MS = 7 * 86_400_000

# KEYS: un-acknowledged messages, their index by time, the malformed, then the lists to search, in
# order. ARGV: the queue of each list; an empty name needs no acknowledgement. The message is stamped
# with the server's own time: workers' clocks may disagree by more than the visibility timeout.
# RPOP comes before any other write: at maxmemory Redis refuses a script's first write that takes
# memory, but lets a script that has begun to write finish, so the record is never refused.
# LLEN arms CLIENT TRACKING: the next write to one of the empty lists is pushed to the caller.
CLAIM = f"""
local function text(value, other)
  return type(value) == 'string' and value or other
end
for i = 4, #KEYS do
  local raw = redis.call('RPOP', KEYS[i])
  if raw then
    local ok, message = pcall(cjson.decode, raw)
    local properties = ok and type(message) == 'table' and message.properties
    local tag = type(properties) == 'table' and properties.delivery_tag
    if type(tag) ~= 'string' then
      redis.call('LPUSH', KEYS[3], raw)
      redis.call('LTRIM', KEYS[3], 0, {MALFORMED_MAX - 1})
      redis.call('PEXPIRE', KEYS[3], {MALFORMED_TTL_MS})
      return {{i - 4, raw}}
    end
    local queue = ARGV[i - 3]
    if queue ~= '' then
      local info = properties.delivery_info
      if type(info) ~= 'table' then info = {{}} end
      local exchange = cjson.encode(text(info.exchange, ''))
      local routing_key = cjson.encode(text(info.routing_key, queue))
      redis.call('HSET', KEYS[1], tag, '[' .. raw .. ',' .. exchange .. ',' .. routing_key .. ']')
      local clock = redis.call('TIME')
      redis.call('ZADD', KEYS[2], clock[1] .. '.' .. string.format('%06d', clock[2]), tag)
    end
    return {{i - 4, raw, tag}}
  end
end
for i = 4, #KEYS do redis.call('LLEN', KEYS[i]) end
return false
"""
CLAIM_SHA = sha1(CLAIM.encode(), usedforsecurity=False).hexdigest()


class AtomicClaimError(KombuError):  # type: ignore[misc]
    """This broker, or this configuration, can't serve atomic claims."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}. To use kombu's own transport, set LABELYARD_ATOMIC_CLAIM=0."


class Wakeup:
    """Knows whether an empty answer still holds, or the queues must be asked again."""

    def __init__(self) -> None:
        self.empty_queues: frozenset[str] = frozenset()
        self.due = 0.0
        self.is_called = False

    def call(self, _push: object = None) -> None:
        """Note that the server pushed a change of a list that was empty."""
        self.is_called = True

    def clear(self) -> None:
        """Forget the last answer."""
        self.empty_queues = frozenset()
        self.is_called = False

    def sleep(self, queues: Iterable[str], *, at_most_s: float) -> None:
        """Note that *queues* were empty; a lost push costs *at_most_s* seconds."""
        self.empty_queues = frozenset(queues)
        self.due = monotonic() + at_most_s

    def is_asleep(self, queues: Iterable[str]) -> bool:
        """Tell whether *queues* are known to be empty still."""
        known_empty = self.empty_queues.issuperset(queues) and monotonic() < self.due
        return known_empty and not self.is_called


def set_aside(channel: Any, raw: bytes, delivery_tag: str) -> None:
    """Move a claimed message that no consumer can be given to the malformed ones."""
    prefix = channel.global_keyprefix
    # A bare client: kombu's prefixed one leaves the key of LTRIM alone.
    with Redis(connection_pool=channel.pool).pipeline() as pipe:
        pipe.lpush(prefix + MALFORMED_KEY, raw)
        pipe.ltrim(prefix + MALFORMED_KEY, 0, MALFORMED_MAX - 1)
        pipe.pexpire(prefix + MALFORMED_KEY, MALFORMED_TTL_MS)
        pipe.hdel(prefix + channel.unacked_key, delivery_tag)
        pipe.zrem(prefix + channel.unacked_index_key, delivery_tag)
        pipe.execute()
