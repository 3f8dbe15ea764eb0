-- Drop a dead letter; its failed result stays readable for its TTL.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  purger: drawn for each call: a repeated call whose reply was lost has purged too
--
-- Returns {'purged'} or {'missing'}.
--
-- @include _prelude.lua
local purger = ARGV[5]

local was_dead = redis.call('ZREM', DEAD_LETTERS, ID) == 1
local is_there = redis.call('EXISTS', JOB) == 1
if was_dead and is_there then
  redis.call('HSET', JOB, 'purger', purger)
  redis.call('EXPIRE', JOB, RESULT_TTL)
end
local is_ours = is_there and redis.call('HGET', JOB, 'purger') == purger
return {(was_dead or is_ours) and 'purged' or 'missing'}
