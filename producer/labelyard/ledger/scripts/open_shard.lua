-- Note that a waiting shard has a job.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  name: name of the shard
-- ARGV[7]  next_open_at: when the run's rate permits the next shard; 0 = at once
--
-- Returns {'opened'}, or {'done'} if the shard waits no more.
--
-- @include _prelude.lua
-- @include _run.lua
local name, next_open_at = ARGV[6], ARGV[7]

if redis.call('ZREM', WAITING, name) == 0 then return {'done'} end
redis.call('ZADD', OPENED, now, name)
redis.call('HSET', RUN, 'next_open_at', next_open_at)
keep_run()
return {'opened'}
