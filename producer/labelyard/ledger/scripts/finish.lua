-- Make a job final, unless it is: the first final state stands.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]   state: the final state
-- ARGV[6]   result: the result as JSON; '' = none
-- ARGV[7]   undelivered: names of its pending deliveries, with commas; '' = none
-- ARGV[8]   is_dead: 1 = the job becomes a dead letter
-- ARGV[9]   ender: drawn for each call, so that a repeated call is recognised
-- ARGV[10]  deliverer: worker that makes the deliveries now; '' = whichever worker has room
-- ARGV[11]  due_in_s: seconds from now after which that worker may take them
--
-- Returns
--   {'finished', state}
--   {'final', state}     it was final before
--   {'early', state}     it has not expired yet
--   {'missing'}
--
-- A call that is repeated because its reply was lost finds its own ender or its own result,
-- even if the dead letter was replayed meanwhile.
--
-- @include _prelude.lua
-- @include _pending_deliveries.lua
local final, result, undelivered, is_dead = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1'
local ender, deliverer, due_in_s = ARGV[9], ARGV[10], tonumber(ARGV[11])

local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if ender ~= '' and redis.call('HGET', JOB, 'ender') == ender then return {'finished', final} end
if FINAL[state] then
  local is_ours = result ~= '' and redis.call('HGET', JOB, 'result') == result
  return {is_ours and 'finished' or 'final', state}
end
if final == 'expired' and not is_overdue() then return {'early', state} end
redis.call('HSET', JOB, 'ender', ender)
local ttl = add_deliveries(undelivered, deliverer, due_in_s)
if is_dead then
  redis.call('ZADD', DEAD_LETTERS, now, ID)
  keep(DEAD_LETTERS)
  ttl = math.max(ttl, OPEN_TTL)
end
finalise(final, result, ttl)
return {'finished', final}
