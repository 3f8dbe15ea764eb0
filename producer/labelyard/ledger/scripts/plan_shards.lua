-- Add a shard to a run, move the planner's checkpoint, or note that the plan is complete.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]   expected: number of shards that were planned before
-- ARGV[7]   name: name of the shard; '' = none
-- ARGV[8]   range: its range of lines as JSON
-- ARGV[9]   checkpoint: where a planner goes on, as JSON
-- ARGV[10]  counts: numbers by the field of the run that they are added to, as JSON
-- ARGV[11]  is_complete: 1 = there are no more lines
--
-- Returns
--   {'planned', state}
--   {'stale', number}   another planner has come further: it planned so many shards
--   {'over', state}     the run has ended, or is being cancelled
--
-- A repeated call finds its own checkpoint.
--
-- @include _prelude.lua
-- @include _run.lua
local expected, name, range = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local checkpoint, counts, is_complete = ARGV[9], ARGV[10], ARGV[11] == '1'

local state = redis.call('HGET', RUN, 'state')
if state ~= 'planning' and state ~= 'running' then return {'over', state or 'missing'} end
if redis.call('HGET', RUN, 'checkpoint') == checkpoint then return {'planned', state} end
local planned = run_number('shards_planned')
if planned ~= expected then return {'stale', tostring(planned)} end
if name ~= '' then
  redis.call('HSET', SHARDS, name, range)
  redis.call('ZADD', WAITING, planned, name)
  redis.call('HINCRBY', RUN, 'shards_planned', 1)
  redis.call('HINCRBY', RUN, 'shards', 1)
end
for field, number in pairs(cjson.decode(counts)) do
  if number ~= 0 then redis.call('HINCRBY', RUN, field, number) end
end
if is_complete then redis.call('HSET', RUN, 'is_planned', 1, 'planned_at', stamp) end
if name ~= '' or is_complete then
  redis.call('HSET', RUN, 'state', 'running')
  state = 'running'
end
redis.call('HSET', RUN, 'checkpoint', checkpoint, 'changed_at', stamp)
keep_run()
return {'planned', state}
