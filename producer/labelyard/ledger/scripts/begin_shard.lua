-- Begin an attempt at a shard; what an attempt that was lost had done is counted as done again.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  name: name of the shard
-- ARGV[7]  start: number of the attempt, from start.lua
--
-- Returns {state of the run, 1 if it is paused, trail of the lost attempt or ''}; the state is ''
-- if there is no such run.
--
-- @include _prelude.lua
-- @include _run.lua
local name, start = ARGV[6], tonumber(ARGV[7])

local state, paused = unpack(redis.call('HMGET', RUN, 'state', 'is_paused'))
local trail = redis.call('HGET', TRAILS, name)
if trail then
  local left = cjson.decode(trail)
  if tonumber(left.start) ~= start then
    redis.call('HINCRBY', RUN, 'computed_again', left.done or 0)
    left.start, left.done = start, 0
    redis.call('HSET', TRAILS, name, cjson.encode(left))
    keep_run()
  end
end
if state and not redis.call('HGET', RUN, 'started_at') then
  redis.call('HSET', RUN, 'started_at', stamp)
end
return {state or '', paused == '1' and '1' or '', trail or ''}
