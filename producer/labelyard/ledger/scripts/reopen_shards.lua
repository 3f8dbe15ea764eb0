-- Let shards wait for a job again, because theirs were cancelled or are lost.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  names: names of the shards as a JSON list
--
-- Returns the number of shards that had a job.
--
-- @include _prelude.lua
-- @include _run.lua
local names = cjson.decode(ARGV[6])

local moved = 0
for _, name in ipairs(names) do
  if redis.call('ZREM', OPENED, name) == 1 then
    moved = moved + 1
    if redis.call('HEXISTS', SHARDS, name) == 1 then redis.call('ZADD', WAITING, -1, name) end
    local trail = redis.call('HGET', TRAILS, name)
    if trail then
      redis.call('HINCRBY', RUN, 'computed_again', cjson.decode(trail).done or 0)
      redis.call('HDEL', TRAILS, name)
    end
  end
end
keep_run()
return moved
