-- Count open jobs in the backlog that are missing there, because an earlier version opened them.
--
-- KEYS[1]  open jobs (sorted set)
-- KEYS[2]  backlog by queue and tenant (hash)
-- ARGV[1]  namespace
-- ARGV[2]  open_ttl_s
-- ARGV[3]  offset: jobs to skip
-- ARGV[4]  limit: most jobs to look at
--
-- Returns {number of jobs looked at, number of jobs added}.
local OPEN, BACKLOG = KEYS[1], KEYS[2]
local namespace, open_ttl_s = ARGV[1], ARGV[2]
local offset, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local FINAL = {succeeded=1, partial=1, failed=1, cancelled=1, expired=1}

local ids = redis.call('ZRANGE', OPEN, offset, offset + limit - 1)
local added = 0
for _, id in ipairs(ids) do
  local state, queue, tenant, images, submitted_at = unpack(redis.call('HMGET',
    namespace .. ':job:' .. id, 'state', 'queue', 'tenant', 'images', 'submitted_at'))
  if state and not FINAL[state] and queue and tenant and tonumber(images) and tonumber(submitted_at)
  then
    local by_age = namespace .. ':open:' .. queue
    if redis.call('ZADD', by_age, 'NX', submitted_at, tenant .. ':' .. images .. ':' .. id) == 1 then
      redis.call('HINCRBY', BACKLOG, 'images:' .. queue .. ':' .. tenant, images)
      redis.call('HINCRBY', BACKLOG, 'jobs:' .. queue .. ':' .. tenant, 1)
      redis.call('EXPIRE', by_age, open_ttl_s)
      added = added + 1
    end
  end
end
redis.call('EXPIRE', BACKLOG, open_ttl_s)
return {#ids, added}
