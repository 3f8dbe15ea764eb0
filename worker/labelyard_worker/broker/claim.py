"""The claim of a message as one Redis script, and what is known after an empty answer."""

from collections.abc import Iterable
from hashlib import sha1
from time import monotonic
from typing import Any

from kombu.exceptions import KombuError
from redis import Redis

# Messages that could not be delivered where there is no admission gate. Workers of labelyard have
# one, and keep such messages in the ledger; before that they were kept here.
MALFORMED_KEY = "labelyard.malformed"
MALFORMED_MAX = 10_000
MALFORMED_TTL_MS = 7 * 86_400_000

# KEYS: un-acknowledged messages, their index by time, then the lists to search, in order.
# ARGV: the delivery tag, then the queue of each list; an empty name needs no acknowledgement.
# The script does not look into the message: the tag is the claimant's, and the record says that
# the message goes back to the queue that it came from. The message is stamped with the server's
# own time: workers' clocks may disagree by more than the visibility timeout.
# RPOP comes before any other write: at maxmemory Redis refuses a script's first write that takes
# memory, but lets a script that has begun to write finish, so the record is never refused.
# LLEN arms CLIENT TRACKING: the next write to one of the empty lists is pushed to the caller.
CLAIM = """
for i = 3, #KEYS do
  local raw = redis.call('RPOP', KEYS[i])
  if raw then
    local queue = ARGV[i - 1]
    if queue ~= '' then
      redis.call('HSET', KEYS[1], ARGV[1], '[' .. raw .. ',"",' .. cjson.encode(queue) .. ']')
      local clock = redis.call('TIME')
      redis.call('ZADD', KEYS[2], clock[1] .. '.' .. string.format('%06d', clock[2]), ARGV[1])
    end
    return {i - 3, raw}
  end
end
for i = 3, #KEYS do redis.call('LLEN', KEYS[i]) end
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
        """Return whether *queues* are known to be empty still."""
        known_empty = self.empty_queues.issuperset(queues) and monotonic() < self.due
        return known_empty and not self.is_called


def keep_malformed(channel: Any, raw: bytes, delivery_tag: str) -> None:
    """Move a claimed message that cannot be delivered to the malformed ones, in one step."""
    prefix = channel.global_keyprefix
    key = prefix + MALFORMED_KEY
    # A bare client: kombu's prefixed one leaves the key of LTRIM alone.
    with Redis(connection_pool=channel.pool).pipeline() as pipe:
        pipe.lpush(key, raw)
        pipe.ltrim(key, 0, MALFORMED_MAX - 1)
        pipe.pexpire(key, MALFORMED_TTL_MS)
        pipe.hdel(prefix + channel.unacked_key, delivery_tag)
        pipe.zrem(prefix + channel.unacked_index_key, delivery_tag)
        pipe.execute()
