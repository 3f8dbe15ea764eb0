-- Pause, resume or end a run.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  step: 'pause', 'resume', 'cancel', 'expire', 'fail' or 'finish'
-- ARGV[7]  failure: why it fails, as JSON
--
-- Returns {'done', state, epoch}, {'refused', state, epoch} if the run's state does not permit the
-- step, or {'missing', '', ''}. A step that was done before is done.
--
-- A run that ends first becomes 'cancelling' (its shards are withdrawn), then 'finishing' (its
-- summary is written). Resuming a cancelled run begins a new epoch: its parts get jobs under new
-- ids.
--
-- @include _prelude.lua
-- @include _run.lua
local step, failure = ARGV[6], ARGV[7]

local state = redis.call('HGET', RUN, 'state')
if not state then return {'missing', '', ''} end
local function answer(verdict) return {verdict, state, redis.call('HGET', RUN, 'epoch')} end
local function change(...)
  redis.call('HSET', RUN, 'changed_at', stamp, ...)
  state = redis.call('HGET', RUN, 'state')
  keep_run()
  return answer('done')
end
local is_open = state == 'planning' or state == 'running'

if step == 'pause' then
  if is_open then return change('is_paused', 1) end
elseif step == 'resume' then
  if is_open then return change('is_paused', 0) end
  local ends_as = redis.call('HGET', RUN, 'ends_as')
  if state == 'cancelled' or (state == 'cancelling' and ends_as == 'cancelled') then
    redis.call('HDEL', RUN, 'ends_as', 'finished_at')
    redis.call('HINCRBY', RUN, 'epoch', 1)
    redis.call('ZADD', OPEN_RUNS, now, RUN_ID)
    local has_shards = run_number('shards_planned') > 0
    return change('is_paused', 0, 'state', has_shards and 'running' or 'planning')
  end
elseif step == 'cancel' or step == 'expire' or step == 'fail' then
  local ends_as = ({cancel = 'cancelled', expire = 'expired', fail = 'failed'})[step]
  if redis.call('HGET', RUN, 'ends_as') == ends_as then return answer('done') end
  if step == 'fail' and not FINAL[state] then redis.call('HSET', RUN, 'error', failure) end
  if is_open then return change('state', 'cancelling', 'ends_as', ends_as, 'is_paused', 0) end
elseif step == 'finish' then
  if state == 'finishing' then return answer('done') end
  if is_open or state == 'cancelling' then return change('state', 'finishing', 'is_paused', 0) end
end
return answer('refused')
