-- Write the bounds of the event stream, drop old events, and groups that nobody has used for long.
--
-- KEYS[1]  events of the namespace (stream)
-- KEYS[2]  state of the stream (hash)
-- KEYS[3]  groups (sorted set)
-- ARGV[1]  namespace
-- ARGV[2]  ttl_s
-- ARGV[3]  max_entries: 0 = no events are written
-- ARGV[4]  max_age_s
-- ARGV[5]  result_max_bytes
--
-- Returns the number of events that were dropped.
--
local namespace, ttl = ARGV[1], ARGV[2]

redis.call('HSET', KEYS[2], 'max_entries', ARGV[3], 'max_age_s', ARGV[4], 'result_max_bytes', ARGV[5])
redis.call('EXPIRE', KEYS[2], ttl)
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('TTL', KEYS[1]) == -1 then redis.call('EXPIRE', KEYS[1], ttl) end
for _, group in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if redis.call('EXISTS', namespace .. ':event_group:' .. group) == 0 then
    redis.call('XGROUP', 'DESTROY', KEYS[1], group)
    redis.call('ZREM', KEYS[3], group)
  end
end
local oldest = (tonumber(redis.call('TIME')[1]) - tonumber(ARGV[4])) * 1000
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', math.max(0, oldest)))
