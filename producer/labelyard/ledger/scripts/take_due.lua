-- Take a lease on due jobs: if the taker dies before they are sent, they become due again.
--
-- KEYS[1]  due jobs (sorted set)
-- ARGV[1]  lease_s: length of the lease in seconds
-- ARGV[2]  limit: most jobs to take
--
-- Returns {end of the lease, ids...}.
local lease_s, limit = tonumber(ARGV[1]), ARGV[2]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit)
local lease = string.format('%.6f', now + lease_s)
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], lease, id) end
table.insert(ids, 1, lease)
return ids
