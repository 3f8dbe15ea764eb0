-- Open the record of a run, unless there is one under its id.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]   request: the run as JSON
-- ARGV[7]   digest: digest of the request
-- ARGV[8]   tenant
-- ARGV[9]   expires_at: seconds since the epoch; '' = never
-- ARGV[10]  opener: drawn for each call: a repeated call whose reply was lost has opened it too
--
-- Returns {verdict, state, now}; the verdict is 'opened', 'exists' or 'conflict' (another request).
--
-- @constants RUN_INDEX_MAX_ENTRIES
-- @include _prelude.lua
-- @include _run.lua
local request, digest, tenant = ARGV[6], ARGV[7], ARGV[8]
local expires_at, opener = ARGV[9], ARGV[10]

local state = redis.call('HGET', RUN, 'state')
if state then
  if redis.call('HGET', RUN, 'opener') == opener then return {'opened', state, stamp} end
  local is_same = redis.call('HGET', RUN, 'digest') == digest
    and redis.call('HGET', RUN, 'tenant') == tenant
  return {is_same and 'exists' or 'conflict', state, stamp}
end
redis.call('HSET', RUN, 'state', 'planning', 'request', request, 'digest', digest,
  'tenant', tenant, 'expires_at', expires_at, 'opener', opener, 'submitted_at', stamp,
  'changed_at', stamp, 'epoch', 0)
redis.call('ZADD', RUNS, now, RUN_ID)
if redis.call('ZCARD', RUNS) > RUN_INDEX_MAX_ENTRIES then redis.call('ZPOPMIN', RUNS) end
redis.call('ZADD', OPEN_RUNS, now, RUN_ID)
keep_run()
return {'opened', 'planning', stamp}
