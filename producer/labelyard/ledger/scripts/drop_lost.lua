-- Take entries out of the backlog that stand for no open job: a record was lost before its job was
-- final, or an earlier version made the job final.
--
-- KEYS[1]  open jobs of the queue by age (sorted set)
-- KEYS[2]  backlog by queue and tenant (hash)
-- KEYS[3]  open images (counter)
-- ARGV[1]  namespace
-- ARGV[2]  open_ttl_s
-- ARGV[3]  queue: name of the queue
-- ARGV[4]  offset: entries to skip, the oldest first
-- ARGV[5]  limit: most entries to look at
--
-- Returns {number of entries looked at, number of entries taken out}.
local BY_AGE, BACKLOG, OPEN_IMAGES = KEYS[1], KEYS[2], KEYS[3]
local namespace, open_ttl_s, queue = ARGV[1], ARGV[2], ARGV[3]
local offset, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
local FINAL = {succeeded=1, partial=1, failed=1, cancelled=1, expired=1}

local function lessen(field, number)
  if redis.call('HINCRBY', BACKLOG, field, -number) <= 0 then redis.call('HDEL', BACKLOG, field) end
end

local members = redis.call('ZRANGE', BY_AGE, offset, offset + limit - 1)
local dropped = 0
for _, member in ipairs(members) do
  local tenant, images, id = string.match(member, '^([^:]*):(%d+):(.*)$')
  local state, now_in, of, holds = unpack(
    redis.call('HMGET', namespace .. ':job:' .. (id or ''), 'state', 'queue', 'tenant', 'images'))
  local is_open = state and not FINAL[state]
  if not (is_open and now_in == queue and of == tenant and holds == images) then
    redis.call('ZREM', BY_AGE, member)
    dropped = dropped + 1
    if id then
      lessen('images:' .. queue .. ':' .. tenant, images)
      lessen('jobs:' .. queue .. ':' .. tenant, 1)
    end
    if id and not state and redis.call('DECRBY', OPEN_IMAGES, images) < 0 then
      redis.call('SET', OPEN_IMAGES, 0)
    end
  end
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, open_ttl_s) end
return {#members, dropped}
