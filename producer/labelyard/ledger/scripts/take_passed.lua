-- Look through jobs that were not sent, started or looked at for a while, and find those whose
-- message must have left its queue.
--
-- KEYS[1]    open jobs (sorted set)
-- ARGV[1]    namespace
-- ARGV[2]    latest: highest score to look at
-- ARGV[3]    limit: most jobs to look at
-- ARGV[4]    offset: jobs to skip
-- ARGV[5]    only: name of the queue; '' = all
-- ARGV[6]    open_ttl_s
-- ARGV[7]    earliest: lowest score to look at
-- ARGV[8..]  for each queue its name, and the time before which it has passed on what was published
--
-- Returns {number of jobs looked at, number of other queues' jobs, ids found...}.
--
-- The others are looked at again after as long a while, and their records live on: a backlog may
-- last longer than open_ttl_s. A job without a record is dropped.
local namespace, latest, limit, offset = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local only, open_ttl_s, earliest = ARGV[5], ARGV[6], ARGV[7]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local passed, found, others = {}, {0, 0}, 0
for i = 8, #ARGV, 2 do passed[ARGV[i]] = tonumber(ARGV[i + 1]) end
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], earliest, latest, 'LIMIT', offset, limit)
for _, id in ipairs(ids) do
  local key = namespace .. ':job:' .. id
  local job = redis.call('HMGET', key, 'queue', 'published_at')
  if not job[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif only ~= '' and job[1] ~= only then
    others = others + 1
  elseif passed[job[1]] and tonumber(job[2]) < passed[job[1]] then
    found[#found + 1] = id
  else
    redis.call('ZADD', KEYS[1], now, id)
    redis.call('EXPIRE', key, open_ttl_s)
    redis.call('EXPIRE', KEYS[1], open_ttl_s)
  end
end
found[1], found[2] = #ids, others
return found
