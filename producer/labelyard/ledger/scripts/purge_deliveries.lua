-- Drop a job from the dead deliveries; its result stays readable for its TTL.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  purger: drawn for each call: a repeated call whose reply was lost has purged too
--
-- Returns {'purged'} or {'missing'}.
--
-- @include _prelude.lua
-- @include _dead_deliveries.lua
local purger = ARGV[5]

local was_dead = redis.call('ZREM', DEAD_DELIVERIES, ID) == 1
local is_there = redis.call('EXISTS', JOB) == 1
if was_dead and is_there then
  redis.call('HSET', JOB, 'delivery_purger', purger)
  release_record(ID, RESULT_TTL)
end
local is_ours = is_there and redis.call('HGET', JOB, 'delivery_purger') == purger
return {(was_dead or is_ours) and 'purged' or 'missing'}
