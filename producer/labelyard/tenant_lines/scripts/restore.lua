-- Return an unacknowledged message to its queue.
--
-- KEYS[1]  unacknowledged messages (hash)
-- KEYS[2]  their index by time (sorted set)
-- KEYS[3]  lists whose messages are sorted into lines (set)
-- KEYS[4]  list to return it to
-- ARGV[1]  delivery tag
-- ARGV[2]  message
-- ARGV[3]  RPUSH to have it claimed next (of its tenant, if the list is sorted), LPUSH as the last
-- Returns 1, or 0 if another worker returned it before.
--
-- HDEL comes first: a script that has begun to write may finish at maxmemory.
--
-- @include _lines.lua
local is_here = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if is_here == 0 then return 0 end
local list = KEYS[4]
if ARGV[3] == 'RPUSH' and redis.call('SISMEMBER', KEYS[3], list) == 1 then
  local turns = list .. TURNS
  local line = line_of(turns, tenant_of(ARGV[2]))
  redis.call('RPUSH', list .. LINE .. line, ARGV[2])
  redis.call('ZADD', turns, 'NX', redis.call('ZSCORE', turns, '') or 0, line)
else
  redis.call(ARGV[3], list, ARGV[2])
end
return 1
