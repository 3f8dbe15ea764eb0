-- Note that a message for the job was sent just now.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  due: score under which the job was taken from the due ones; '' = it was not. A retry
--          that was set meanwhile has another score, and stays.
--
-- Returns {'sent', state, now} or {'final', state or 'missing'}.
--
-- @include _prelude.lua
local taken_due = tonumber(ARGV[5])

local state = redis.call('HGET', JOB, 'state')
local is_over = not state or FINAL[state]
local due = redis.call('ZSCORE', DUE, ID)
if due and (is_over or tonumber(due) == taken_due) then redis.call('ZREM', DUE, ID) end
if is_over then
  redis.call('ZREM', OPEN, ID)
  return {'final', state or 'missing'}
end
redis.call('HSET', JOB, 'published_at', stamp)
redis.call('ZADD', OPEN, now, ID)
keep(JOB)
return {'sent', state, stamp}
