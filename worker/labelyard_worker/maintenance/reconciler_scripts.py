"""The Lua scripts of the reconciler: who leads, what is due, and which jobs have lost their message."""

# Become the leader, or stay it.
# KEYS: the lock. ARGV: worker, its life in ms. Returns 1 for the leader, else 0.
LEAD = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# Take what is due out of a sorted set, for the length of a lease: if the taker dies before it is
# sent, it becomes due again.
# KEYS: the sorted set. ARGV: lease_s, most members. Returns {lease's end, members...}.
TAKE_DUE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local lease = string.format('%.6f', now + tonumber(ARGV[1]))
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], lease, id) end
table.insert(ids, 1, lease)
return ids
"""
# KEYS: the sorted set. ARGV: most members. Returns the members that are due, oldest first.
DUE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""
# Look through jobs that were not sent, begun or looked at for a while, and find those that their
# queue has passed on. The others are looked at again after as long a while, and their records
# live on: a backlog may be longer than open_ttl_s. What has no record any more is dropped.
# KEYS: the open jobs. ARGV: namespace, latest score, most jobs, offset, queue ('' = all),
#   open_ttl_s, earliest score, then for each queue its name and the time before which it has passed on what was
#   published.
# Returns {jobs looked at, jobs of other queues, ids of those that their queue has passed on...}.
TAKE_PASSED = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local passed, found, others = {}, {0, 0}, 0
for i = 8, #ARGV, 2 do passed[ARGV[i]] = tonumber(ARGV[i + 1]) end
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[7], ARGV[2], 'LIMIT', ARGV[4], ARGV[3])
for _, id in ipairs(ids) do
  local key = ARGV[1] .. ':job:' .. id
  local job = redis.call('HMGET', key, 'queue', 'published_at')
  if not job[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif ARGV[5] ~= '' and job[1] ~= ARGV[5] then
    others = others + 1
  elseif passed[job[1]] and tonumber(job[2]) < passed[job[1]] then
    found[#found + 1] = id
  else
    redis.call('ZADD', KEYS[1], now, id)
    redis.call('EXPIRE', key, ARGV[6])
    redis.call('EXPIRE', KEYS[1], ARGV[6])
  end
end
found[1], found[2] = #ids, others
return found
"""
