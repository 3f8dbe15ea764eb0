-- Write how attempts at a job's deliveries ended, and when the next ones are due.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  worker: the worker that delivered
-- ARGV[6]  outcomes: JSON object by delivery, each with kind, reason and perhaps retry_in_s
-- ARGV[7]  jitter: a random number from 0 to 1
--
-- Returns {'settled'} (nothing is pending any more), {'pending'} or {'missing'}.
--
-- The pause doubles with each attempt: 2 s, 4 s, 8 s. A worker whose lease was lost can only add
-- deliveries that succeeded.
--
-- @constants DELIVER_FOR_S, LONGEST_PAUSE_S
-- @include _prelude.lua
local worker, outcomes, jitter = ARGV[5], cjson.decode(ARGV[6]), tonumber(ARGV[7])

local finished_at = tonumber(redis.call('HGET', JOB, 'finished_at'))
if not finished_at then
  redis.call('ZREM', PENDING_DELIVERIES, ID)
  return {'missing'}
end
local is_mine = redis.call('HGET', JOB, 'deliverer') == worker
local states = cjson.decode(redis.call('HGET', JOB, 'deliveries') or '{}')
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
  if now - finished_at >= DELIVER_FOR_S then
    state.state = 'failed'
    return count('given_up')
  end
  local pause_s = outcome.retry_in_s or math.pow(2, state.attempts) * (0.75 + 0.5 * jitter)
  state.next_try_at = now + math.min(LONGEST_PAUSE_S, pause_s)
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
    redis.call('ZADD', PENDING_DELIVERIES, due, ID)
    keep(PENDING_DELIVERIES)
  end
  return {'pending'}
end
redis.call('ZREM', PENDING_DELIVERIES, ID)
redis.call('HDEL', JOB, 'deliverer')
local ttl_s = math.ceil(math.max(60, finished_at + RESULT_TTL - now))
if not redis.call('ZSCORE', DEAD_LETTERS, ID) and redis.call('TTL', JOB) > ttl_s then
  redis.call('EXPIRE', JOB, ttl_s)
end
return {'settled'}
