-- Open a dead letter again, under its old id.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  replayer: drawn for each call: a repeated call whose reply was lost has replayed too
--
-- Returns {'opened', 'pending', when it is due} or {'missing'}.
--
-- @constants QUARANTINE_QUEUE, BULK_QUEUE
-- @include _prelude.lua
local replayer = ARGV[5]

if not redis.call('HGET', JOB, 'message') then return {'missing'} end
if redis.call('HGET', JOB, 'replayer') == replayer then
  return {'opened', 'pending', redis.call('HGET', JOB, 'published_at')}
end
if redis.call('ZREM', DEAD_LETTERS, ID) == 0 then return {'missing'} end
local queue, tenant, images = unpack(redis.call('HMGET', JOB, 'queue', 'tenant', 'images'))
if queue == QUARANTINE_QUEUE then queue = BULK_QUEUE end
redis.call('HSET', JOB, 'state', 'pending', 'queue', queue, 'attempts', 0, 'deaths', 0,
  'deaths_alone', 0, 'published_at', stamp, 'replayer', replayer)
redis.call('HDEL', JOB, 'result', 'finished_at', 'runner', 'last_death', 'undelivered',
  'deliveries', 'deliverer', 'delivery_replayed_at', 'deaths_suspect', 'deaths_beside', 'alone', 'forgiven')
redis.call('ZREM', PENDING_DELIVERIES, ID)
redis.call('ZREM', NAMESPACE .. ':dead_deliveries', ID)
redis.call('DEL', TOMBSTONE)
redis.call('ZADD', OPEN, now, ID)
keep(OPEN)
join_backlog(queue, tenant, images, now)
redis.call('INCRBY', OPEN_IMAGES, images)
keep(OPEN_IMAGES)
redis.call('ZADD', DUE, stamp, ID)
keep(DUE)
local expires_at = redis.call('HGET', JOB, 'expires_at')
if expires_at and expires_at ~= '' then
  redis.call('ZADD', EXPIRING, expires_at, ID)
  keep(EXPIRING)
end
keep(JOB)
return {'opened', 'pending', stamp}
