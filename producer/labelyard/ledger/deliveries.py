"""The ledger's part in deliveries: who holds one, how each attempt ended, when the next is due.

A finished job's record names the deliveries that are still pending (``undelivered``), and
how each went (``deliveries``). The sorted set ``owed`` holds these jobs by the time at
which somebody should take them. A worker that takes a job moves it a lease ahead and
writes its own name into the record, so that one worker at a time delivers a job, and a
dead worker's deliveries are taken over when its lease ends.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from labelyard.ledger.commands import ledger_errors_as_ours
from labelyard.ledger.scripts import DELIVERY_LEASE_S, PRELUDE

if TYPE_CHECKING:
    from labelyard.ledger.client import Ledger

# A failed delivery is tried again for this long after its job finished, then given up.
DELIVER_FOR_S: Final = 86_400
# Longest pause between two attempts, asked for by the receiver or not.
LONGEST_PAUSE_S: Final = 3_600

# KEYS: those of LedgerKeys. ARGV 5..: worker, lease_s, limit. Returns the time, how many
# jobs have pending deliveries, then the ids taken.
TAKE: Final = (
    PRELUDE
    + """
local taken = {stamp, tostring(redis.call('ZCARD', OWED))}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', OWED, '-inf', now, 'LIMIT', 0, ARGV[7])) do
  local job = NAMESPACE .. ':job:' .. id
  local undelivered = redis.call('HGET', job, 'undelivered')
  if not undelivered or undelivered == '' or not redis.call('HGET', job, 'result') then
    redis.call('ZREM', OWED, id)
  else
    redis.call('HSET', job, 'deliverer', ARGV[5])
    redis.call('ZADD', OWED, now + tonumber(ARGV[6]), id)
    taken[#taken + 1] = id
  end
end
return taken
"""
)

# KEYS: those of LedgerKeys. ARGV 5..: worker, lease_s. Returns held or lost.
HOLD: Final = (
    PRELUDE
    + """
if redis.call('HGET', JOB, 'deliverer') ~= ARGV[5] then return {'lost'} end
if not redis.call('ZSCORE', OWED, ID) then return {'lost'} end
redis.call('ZADD', OWED, now + tonumber(ARGV[6]), ID)
return {'held'}
"""
)

# KEYS: those of LedgerKeys. ARGV 5..: worker, outcomes as JSON by delivery, deliver_for_s,
# longest_pause_s, jitter 0 to 1. The pause doubles with each attempt: 2 s, 4 s, 8 s. A worker
# whose lease was lost can only add what it did deliver. Returns settled, owed or missing.
SETTLE: Final = (
    PRELUDE
    + """
local finished_at = tonumber(redis.call('HGET', JOB, 'finished_at'))
if not finished_at then
  redis.call('ZREM', OWED, ID)
  return {'missing'}
end
local is_mine = redis.call('HGET', JOB, 'deliverer') == ARGV[5]
local states = cjson.decode(redis.call('HGET', JOB, 'deliveries') or '{}')
local outcomes = cjson.decode(ARGV[6])
local deliver_for_s, longest_s = tonumber(ARGV[7]), tonumber(ARGV[8])
local left, due = {}, nil

local function count(state)
  local key = NAMESPACE .. ':deliveries'
  redis.call('HINCRBY', key, state, 1)
  keep(key)
end

local function apply(state, outcome)
  if outcome.kind ~= 'postponed' then
    state.attempts = state.attempts + 1
    state.state = outcome.kind
  end
  if outcome.kind ~= 'postponed' or state.attempts == 0 then state.reason = outcome.reason end
  state.next_try_at = nil
  if state.state == 'delivered' or state.state == 'refused' then return count(state.state) end
  if now - finished_at >= deliver_for_s then
    state.state = 'failed'
    return count('given_up')
  end
  local pause_s = outcome.retry_in_s or math.pow(2, state.attempts) * (0.75 + 0.5 * tonumber(ARGV[9]))
  state.next_try_at = now + math.min(longest_s, pause_s)
end

for name in string.gmatch(redis.call('HGET', JOB, 'undelivered') or '', '[^,]+') do
  local state = states[name] or {state = 'pending', attempts = 0, reason = ''}
  local outcome = outcomes[name]
  if outcome and (is_mine or outcome.kind == 'delivered') then
    apply(state, outcome)
    states[name] = state
  end
  if state.state == 'pending' or state.next_try_at then
    left[#left + 1] = name
    due = math.min(due or math.huge, state.next_try_at or now)
  end
end
redis.call('HSET', JOB, 'undelivered', table.concat(left, ','), 'deliveries', cjson.encode(states))
if #left > 0 then
  if is_mine then
    redis.call('HDEL', JOB, 'deliverer')
    redis.call('ZADD', OWED, due, ID)
    keep(OWED)
  end
  return {'owed'}
end
redis.call('ZREM', OWED, ID)
redis.call('HDEL', JOB, 'deliverer')
local ttl_s = math.ceil(math.max(60, finished_at + RESULT_TTL - now))
if not redis.call('ZSCORE', DEAD, ID) and redis.call('TTL', JOB) > ttl_s then
  redis.call('EXPIRE', JOB, ttl_s)
end
return {'settled'}
"""
)


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """How one attempt at a delivery ended.

    Attributes:
        kind: ``delivered``; ``failed``, to be tried again; ``refused``, for good; or
            ``postponed``: not tried, and not counted as an attempt.
        reason: Why, without addresses; empty if delivered.
        retry_in_s: Seconds to the next attempt; ``None`` lets the ledger decide.
        is_host_fault: Whether the failure tells against the host as a whole.
    """

    kind: Literal["delivered", "failed", "refused", "postponed"]
    reason: str = ""
    retry_in_s: float | None = None
    is_host_fault: bool = False

    def fields(self) -> dict[str, Any]:
        """Return the fields that the settle script reads."""
        retry = {} if self.retry_in_s is None else {"retry_in_s": round(self.retry_in_s, 3)}
        return {"kind": self.kind, "reason": self.reason[:300], **retry}


@dataclass(frozen=True, slots=True)
class Taken:
    """Deliveries that one worker took.

    Attributes:
        job_ids: Jobs whose deliveries it holds a lease on.
        now: Redis' time, in seconds since the epoch.
        pending: Jobs with pending deliveries, due or not.
    """

    job_ids: tuple[str, ...]
    now: float
    pending: int


class DeliveryLedger:
    """One worker's operations on the deliveries in the ledger.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(self, ledger: "Ledger", *, worker: str, lease_s: float = DELIVERY_LEASE_S) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease_s = lease_s
        self._take = ledger.client.register_script(TAKE)
        self._hold = ledger.client.register_script(HOLD)
        self._settle = ledger.client.register_script(SETTLE)

    def _run(self, script: Any, job_id: str, *values: object) -> list[str]:
        calls = self._ledger.calls
        with ledger_errors_as_ours():
            answer = script(
                keys=self._ledger.keys.of_record(job_id), args=calls.args(job_id, *values)
            )
        return cast("list[str]", answer)

    def take(self, limit: int) -> Taken:
        """Take up to *limit* jobs whose deliveries are due."""
        now, pending, *taken = self._run(self._take, "", self._worker, self._lease_s, limit)
        return Taken(tuple(taken), now=float(now), pending=int(pending))

    def hold(self, job_id: str) -> bool:
        """Renew the lease on a job; ``False`` if another worker has it, or nothing is pending."""
        return self._run(self._hold, job_id, self._worker, self._lease_s)[0] == "held"

    def settle(self, job_id: str, outcomes: Mapping[str, DeliveryOutcome]) -> bool:
        """Write how attempts ended, by delivery; returns whether nothing is pending any more."""
        answer = self._run(
            self._settle,
            job_id,
            self._worker,
            json.dumps({name: outcome.fields() for name, outcome in outcomes.items()}),
            DELIVER_FOR_S,
            LONGEST_PAUSE_S,
            random.random(),
        )
        return answer[0] != "owed"
