-- Functions of the scripts that add or remove dead deliveries; _prelude.lua stands before it.
--
-- Dead deliveries are jobs whose result could not be delivered: an object or a webhook was refused,
-- or failed until its time was over. Their records are kept, at most MAX_DEAD_DELIVERIES of them.
--
-- @constants MAX_DEAD_DELIVERIES
local DEAD_DELIVERIES = NAMESPACE .. ':dead_deliveries'

local function count_delivery(how)
  local key = NAMESPACE .. ':deliveries'
  redis.call('HINCRBY', key, how, 1)
  keep(key)
end

-- Let the job's record live for another *seconds* at least.
local function outlive(seconds)
  if redis.call('TTL', JOB) < seconds then redis.call('EXPIRE', JOB, seconds) end
end

-- Shorten the life of a record that no list of things to do names any more.
local function release_record(id, seconds)
  for _, index in ipairs({DEAD_LETTERS, PENDING_DELIVERIES, DEAD_DELIVERIES}) do
    if redis.call('ZSCORE', index, id) then return end
  end
  local job = NAMESPACE .. ':job:' .. id
  if redis.call('TTL', job) > seconds then redis.call('EXPIRE', job, seconds) end
end

-- Keep the job as a dead delivery; beyond the bound the oldest are dropped and counted.
local function add_dead_delivery()
  redis.call('ZADD', DEAD_DELIVERIES, now, ID)
  keep(DEAD_DELIVERIES)
  outlive(OPEN_TTL)
  local surplus = redis.call('ZCARD', DEAD_DELIVERIES) - MAX_DEAD_DELIVERIES
  if surplus <= 0 then return end
  local oldest = redis.call('ZPOPMIN', DEAD_DELIVERIES, surplus)
  for at = 1, #oldest, 2 do
    release_record(oldest[at], RESULT_TTL)
    count_delivery('dropped')
  end
end

local function is_dead_delivery(state)
  return state.state == 'refused' or (state.state == 'failed' and not state.next_try_at)
end
