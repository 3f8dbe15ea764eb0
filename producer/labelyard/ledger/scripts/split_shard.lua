-- Put smaller shards in the place of one; a repeated call changes nothing.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  name: name of the shard
-- ARGV[7]  parts: a JSON list of {name, range as JSON}, at most three
-- ARGV[8]  computed_again: images that the shard had done and its parts do again
--
-- Returns {'split'}, {'repeated'}, or {'over'} if the shard is done or unknown.
--
-- @include _prelude.lua
-- @include _run.lua
local name, parts, computed_again = ARGV[6], cjson.decode(ARGV[7]), tonumber(ARGV[8])

if redis.call('HEXISTS', SHARDS, name) == 0 then
  local first = parts[1][1]
  local is_split = redis.call('HEXISTS', SHARDS, first) == 1
    or redis.call('SISMEMBER', DONE, first) == 1
  return {is_split and 'repeated' or 'over'}
end
local at = redis.call('ZSCORE', WAITING, name) or -1
redis.call('ZREM', WAITING, name)
redis.call('ZREM', OPENED, name)
redis.call('HDEL', SHARDS, name)
redis.call('HDEL', TRAILS, name)
for _, part in ipairs(parts) do
  redis.call('HSET', SHARDS, part[1], part[2])
  redis.call('ZADD', WAITING, at, part[1])
end
redis.call('HINCRBY', RUN, 'shards', #parts - 1)
if computed_again > 0 then redis.call('HINCRBY', RUN, 'computed_again', computed_again) end
keep_run()
return {'split'}
