-- Erase a job: its record, its events that hold a result, and its entries in every index.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
--
-- Returns
--   {'forgotten', state}  its final state
--   {'gone', state}       its record was gone, as it is for a repeated call; its final state
--   {'missing'}           there is no record, and no tombstone
--
-- An open job is cancelled first. The tombstone stays: it holds the state alone, and keeps a
-- message that the broker still has from bringing the job back.
--
-- @include _prelude.lua
local state, queue, tenant, images, stream = unpack(
  redis.call('HMGET', JOB, 'state', 'queue', 'tenant', 'images', 'stream'))
if not state then
  local ended = redis.call('GET', TOMBSTONE)
  if ended then return {'gone', ended} end
  return {'missing'}
end
local events, event_ids = unpack(redis.call('HMGET', JOB, 'events', 'event_ids'))
if not FINAL[state] then
  state = 'cancelled'
  finalise(state, '', RESULT_TTL)
end
leave_backlog(queue, tenant, images)
for id in string.gmatch(events or '', '%S+') do
  redis.call('XDEL', NAMESPACE .. ':stream:' .. stream, id)
end
for id in string.gmatch(event_ids or '', '%S+') do erase_event(NAMESPACE, OPEN_TTL, id) end
redis.call('ZREM', DEAD_LETTERS, ID)
redis.call('ZREM', PENDING_DELIVERIES, ID)
redis.call('ZREM', NAMESPACE .. ':dead_deliveries', ID)
redis.call('ZREM', NAMESPACE .. ':jobs', ID)
redis.call('DEL', JOB)
bury(state)
return {'forgotten', state}
