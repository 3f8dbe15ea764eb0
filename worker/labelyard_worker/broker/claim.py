"""Claim script: pop a message and record it as unacknowledged in one step on the server."""

from hashlib import sha1
from typing import Final

from kombu.exceptions import KombuError

# KEYS: unacknowledged messages, their index by time, then the lists to search, in order.
# ARGV: the delivery tag, then the queue of each list; an empty name needs no acknowledgement.
# Returns {place of the list, message}, or nil if all lists are empty.
# The script does not look into the message: the tag is the claimant's, and the record names the
# queue that the message came from and returns to. The message is stamped with the server's
# own time: workers' clocks may disagree by more than the visibility timeout.
# RPOP comes before any other write: at maxmemory Redis refuses a script's first write that takes
# memory, but lets a script that has begun to write finish, so the record is never refused.
# LLEN arms CLIENT TRACKING: the next write to one of the empty lists is pushed to the caller.
CLAIM: Final = """
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
CLAIM_SHA: Final = sha1(CLAIM.encode(), usedforsecurity=False).hexdigest()


class AtomicClaimError(KombuError):  # type: ignore[misc]
    """The broker, or its configuration, cannot serve atomic claims."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}. To use kombu's own transport, set LABELYARD_ATOMIC_CLAIM=0."
