-- Function of the scripts that make a record final; _prelude.lua stands before it.
--
-- The deliverer holds a lease on the pending deliveries; when it ends without an outcome, another
-- worker takes them over.
--
-- @constants DELIVERY_LEASE_S, PENDING_DELIVERY_TTL_S

-- Note the deliveries that a final record needs; returns how long the record must live.
-- undelivered: their names, with commas; '' = none
-- deliverer: worker that makes them now; '' = whichever worker has room
-- due_in_s: seconds from now after which that worker may take them
local function add_deliveries(undelivered, deliverer, due_in_s)
  if undelivered == '' then return RESULT_TTL end
  redis.call('HSET', JOB, 'undelivered', undelivered, 'deliverer', deliverer)
  redis.call('ZADD', PENDING_DELIVERIES,
    now + (deliverer == '' and due_in_s or DELIVERY_LEASE_S), ID)
  keep(PENDING_DELIVERIES)
  return math.max(RESULT_TTL, PENDING_DELIVERY_TTL_S)
end
