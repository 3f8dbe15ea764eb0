-- Make the job of a shard final, and count the shard in its run; each happens once.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]   name: name of the shard
-- ARGV[7]   state: final state of its job
-- ARGV[8]   result: result of its job as JSON
-- ARGV[9]   counts: numbers by the field of the run that they are added to, as JSON
-- ARGV[10]  ender: drawn for each call, so that a repeated call is recognised
-- ARGV[11]  failed: the shard's range and failure as JSON if it failed as a whole; '' = it did not
-- ARGV[12]  images_per_s: its speed; 0 = not known
--
-- Returns {'finished', state}, {'final', state} if it was final before, or {'missing'}.
--
-- @include _prelude.lua
-- @include _run.lua
local name, final, result, counts = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local ender, failed, images_per_s = ARGV[10], ARGV[11], tonumber(ARGV[12])

local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if redis.call('HGET', JOB, 'ender') == ender then return {'finished', final} end
if FINAL[state] then
  return {redis.call('HGET', JOB, 'result') == result and 'finished' or 'final', state}
end
redis.call('HSET', JOB, 'ender', ender)
if count_shard(name, counts) then
  if failed ~= '' then
    redis.call('HSET', FAILED, name, failed)
    keep_run()
  end
  if images_per_s > 0 then  -- a moving average over about four shards
    local known = run_number('shard_images_per_s')
    local speed = known > 0 and known * 0.75 + images_per_s * 0.25 or images_per_s
    redis.call('HSET', RUN, 'shard_images_per_s', string.format('%.3f', speed))
  end
end
finalise(final, result, RESULT_TTL)
return {'finished', final}
