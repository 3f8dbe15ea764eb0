-- Write how attempts at a job's deliveries ended, and when the next ones are due.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]   worker: the worker that delivered
-- ARGV[6]   outcomes: JSON object by delivery, each with kind, reason and perhaps retry_in_s
-- ARGV[7]   jitter: a random number from 0 to 1
-- ARGV[8]   first_pause_s: seconds before the second attempt
-- ARGV[9]   longest_pause_s: longest pause between two attempts
-- ARGV[10]  deliver_for_s: seconds for which a failed delivery is tried again
--
-- Returns {'settled'} (nothing is pending any more), {'pending'} or {'missing'}.
--
-- The pause doubles with each attempt: 2 s, 4 s, 8 s. A delivery that is refused, or fails after
-- the last try, is a dead letter: its record is kept. A worker whose lease was lost can only add
-- deliveries that succeeded.
--
-- @include _prelude.lua
-- @include _dead_deliveries.lua
local worker, outcomes, jitter = ARGV[5], cjson.decode(ARGV[6]), tonumber(ARGV[7])
local first_pause_s, longest_pause_s = tonumber(ARGV[8]), tonumber(ARGV[9])
local deliver_for_s = tonumber(ARGV[10])

local finished_at, replayed_at = unpack(
  redis.call('HMGET', JOB, 'finished_at', 'delivery_replayed_at'))
if not finished_at then
  redis.call('ZREM', PENDING_DELIVERIES, ID)
  return {'missing'}
end
local try_until = tonumber(replayed_at or finished_at) + deliver_for_s
local is_mine = redis.call('HGET', JOB, 'deliverer') == worker
local states = cjson.decode(redis.call('HGET', JOB, 'deliveries') or '{}')
local left, due, has_died = {}, nil, false

local function die(state, how)
  state.died_at = now
  has_died = true
  count_delivery(how)
end

local function apply(state, outcome)
  if outcome.kind ~= 'postponed' then
    state.attempts = state.attempts + 1
    state.state = outcome.kind
  end
  if outcome.kind ~= 'postponed' or state.attempts == 0 then state.reason = outcome.reason end
  state.next_try_at = nil
  if state.state == 'delivered' then return count_delivery('delivered') end
  if state.state == 'refused' then return die(state, 'refused') end
  if now >= try_until then
    state.state = 'failed'
    return die(state, 'given_up')
  end
  local doubled_s = first_pause_s * math.pow(2, math.max(0, state.attempts - 1))
  -- Also the longest pauses are of random length: else all jobs of an outage come at once, each hour.
  local pause_s = math.min(doubled_s * (0.75 + 0.5 * jitter), longest_pause_s * (0.75 + 0.25 * jitter))
  state.next_try_at = now + math.min(longest_pause_s, outcome.retry_in_s or pause_s)
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
if has_died then add_dead_delivery() end
if #left > 0 then
  if is_mine then
    redis.call('HDEL', JOB, 'deliverer')
    redis.call('ZADD', PENDING_DELIVERIES, due, ID)
    keep(PENDING_DELIVERIES)
    outlive(math.ceil(try_until - now + 2 * longest_pause_s))
  end
  return {'pending'}
end
redis.call('ZREM', PENDING_DELIVERIES, ID)
redis.call('HDEL', JOB, 'deliverer')
release_record(ID, math.ceil(math.max(60, tonumber(finished_at) + RESULT_TTL - now)))
return {'settled'}
