-- Renew the lease on a job's pending deliveries.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  worker: the worker that holds the lease
-- ARGV[6]  lease_s: length of the lease in seconds
--
-- Returns {'held'}, or {'lost'} if another worker holds it or nothing is pending.
--
-- @include _prelude.lua
local worker, lease_s = ARGV[5], tonumber(ARGV[6])

if redis.call('HGET', JOB, 'deliverer') ~= worker then return {'lost'} end
if not redis.call('ZSCORE', PENDING_DELIVERIES, ID) then return {'lost'} end
redis.call('ZADD', PENDING_DELIVERIES, now + lease_s, ID)
return {'held'}
