-- Make a run final, and the job that wrote its summary; each happens once.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  state: final state of the run
-- ARGV[7]  summary: its summary as JSON; '' = it could not be written
-- ARGV[8]  failure: why it failed, as JSON; '' = it did not, or its record has the reason
-- ARGV[9]  result: result of the job as JSON
-- ARGV[10]  ender: drawn for each call, so that a repeated call is recognised
-- ARGV[11]  notice: what the webhook of the run gets, as JSON
-- ARGV[12]  undelivered: names of its pending deliveries, with commas; '' = none
-- ARGV[13]  deliverer: worker that makes the deliveries now; '' = whichever worker has room
-- ARGV[14]  due_in_s: seconds from now after which that worker may take them
--
-- Returns {'finished', state}, {'final', state} if the job was final before, or {'missing'}.
--
-- @include _prelude.lua
-- @include _run.lua
-- @include _pending_deliveries.lua
local final, summary, failure = ARGV[6], ARGV[7], ARGV[8]
local result, ender, notice = ARGV[9], ARGV[10], ARGV[11]
local undelivered, deliverer, due_in_s = ARGV[12], ARGV[13], tonumber(ARGV[14])

local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if redis.call('HGET', JOB, 'ender') == ender then return {'finished', final} end
if FINAL[state] then return {'final', state} end
redis.call('HSET', JOB, 'ender', ender)
local ttl = RESULT_TTL
if redis.call('HGET', RUN, 'state') == 'finishing' then
  redis.call('HSET', RUN, 'state', final, 'finished_at', stamp, 'changed_at', stamp,
    'summary', summary)
  if failure ~= '' then redis.call('HSETNX', RUN, 'error', failure) end
  redis.call('ZREM', OPEN_RUNS, RUN_ID)
  local request, tenant = unpack(redis.call('HMGET', RUN, 'request', 'tenant'))
  add_event(NAMESPACE, OPEN_TTL, now, {kind = 'run', id = RUN_ID, state = final, tenant = tenant,
    uri = cjson.decode(request).out, images = run_number('images'), result = summary})
  keep_run()
  if undelivered ~= '' then redis.call('HSET', JOB, 'notice', notice) end
  ttl = add_deliveries(undelivered, deliverer, due_in_s)
end
finalise(failure == '' and 'succeeded' or 'failed', result, ttl)
return {'finished', final}
