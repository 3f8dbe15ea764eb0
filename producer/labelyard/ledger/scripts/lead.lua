-- Become the leader, or stay it.
--
-- KEYS[1]  leader: the lock
-- ARGV[1]  worker: the worker that wants to lead
-- ARGV[2]  ttl_ms: life of the lock in milliseconds
--
-- Returns 1 for the leader, else 0.
local worker, ttl_ms = ARGV[1], ARGV[2]

local leader = redis.call('GET', KEYS[1])
if leader and leader ~= worker then return 0 end
redis.call('SET', KEYS[1], worker, 'PX', ttl_ms)
return 1
