-- Take a lease on jobs with due deliveries.
--
-- KEYS, ARGV[1..4]  see _prelude.lua; no job is at hand, so job_id is ''
-- ARGV[5]  worker: the worker that will deliver
-- ARGV[6]  lease_s: length of the lease in seconds
-- ARGV[7]  limit: most jobs to take
--
-- Returns {now, number of jobs with pending deliveries, ids taken...}.
--
-- @include _prelude.lua
local worker, lease_s, limit = ARGV[5], tonumber(ARGV[6]), ARGV[7]

local taken = {stamp, tostring(redis.call('ZCARD', PENDING_DELIVERIES))}
local due = redis.call('ZRANGEBYSCORE', PENDING_DELIVERIES, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local job = NAMESPACE .. ':job:' .. id
  local undelivered = redis.call('HGET', job, 'undelivered')
  if not undelivered or undelivered == '' or not redis.call('HGET', job, 'result') then
    redis.call('ZREM', PENDING_DELIVERIES, id)
  else
    redis.call('HSET', job, 'deliverer', worker)
    redis.call('ZADD', PENDING_DELIVERIES, now + lease_s, id)
    taken[#taken + 1] = id
  end
end
return taken
