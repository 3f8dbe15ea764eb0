-- Have a delivery of a job tried now, as if its job had just finished.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  kind: the delivery, object or webhook
-- ARGV[6]  states: of the deliveries to replay, with commas: pending, failed, dead, delivered
-- ARGV[7]  replayer: drawn for each call: a repeated call whose reply was lost has replayed too
--
-- Returns
--   {'due'}         it is tried now, or is already
--   {'other'}       it is in none of the states
--   {'none'}        the job has no result, or wants no such delivery
--   {'missing'}     there is no record
--
-- @constants PENDING_DELIVERY_TTL_S
-- @include _prelude.lua
-- @include _dead_deliveries.lua
local kind, wanted, replayer = ARGV[5], ',' .. ARGV[6] .. ',', ARGV[7]

local state, result, undelivered, encoded, known, deliverer = unpack(redis.call('HMGET', JOB,
  'state', 'result', 'undelivered', 'deliveries', 'delivery_replayer', 'deliverer'))
if not state then
  redis.call('ZREM', DEAD_DELIVERIES, ID)
  return {'missing'}
end
if known == replayer then return {'due'} end
local names, is_pending = {}, false
for name in string.gmatch(undelivered or '', '[^,]+') do
  names[#names + 1] = name
  is_pending = is_pending or name == kind
end
local states = cjson.decode(encoded or '{}')
local delivery = states[kind] or (is_pending and {state = 'pending', attempts = 0, reason = ''})
if not delivery or not result or result == '' then return {'none'} end
local word = delivery.state
if is_dead_delivery(delivery) then word = 'dead' end
if not string.find(wanted, ',' .. word .. ',', 1, true) then return {'other'} end

if is_pending then
  if delivery.next_try_at then delivery.next_try_at = now end
else
  names[#names + 1] = kind
  delivery = {state = 'pending', attempts = 0, reason = ''}
  redis.call('HSET', JOB, 'delivery_replayed_at', stamp)
end
states[kind] = delivery
redis.call('HSET', JOB, 'undelivered', table.concat(names, ','),
  'deliveries', cjson.encode(states), 'delivery_replayer', replayer)
local is_dead = false
for _, other in pairs(states) do is_dead = is_dead or is_dead_delivery(other) end
if not is_dead then redis.call('ZREM', DEAD_DELIVERIES, ID) end
-- A worker that holds a lease on the job settles it first; then this delivery is due.
if not deliverer or deliverer == '' then
  redis.call('ZADD', PENDING_DELIVERIES, now, ID)
  keep(PENDING_DELIVERIES)
end
outlive(PENDING_DELIVERY_TTL_S)
return {'due'}
