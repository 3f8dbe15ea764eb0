-- List open jobs whose expires_at has passed, the oldest first.
--
-- KEYS[1]  expiring jobs (sorted set)
-- ARGV[1]  limit: most jobs to list
--
-- Returns their ids.
local limit = ARGV[1]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit)
