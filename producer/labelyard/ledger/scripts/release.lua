-- End an attempt without a result.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  worker: the worker that ran it
-- ARGV[6]  delay_s: seconds until the job is sent again; '' = the broker still holds the message
-- ARGV[7]  death: what broke the worker's thread; '' = nothing
-- ARGV[8]  start: number of the attempt, from start.lua; '' = not known
-- ARGV[9]  counting: 'uncounted' = the attempt does not count; '' = it does
--
-- Returns
--   {'released', 'pending'}
--   {'repeated', state}              this attempt was ended before
--   {'running', runner}              another worker has the job
--   {'final', state or 'missing'}
--
-- A job that comes back alive, to be sent again later, is cleared of its workers' deaths: one
-- that waits for an absent storage is begun every few seconds, and would else collect the
-- deaths of workers that were killed for other reasons.
--
-- @include _prelude.lua
local worker, delay_s, death = ARGV[5], ARGV[6], ARGV[7]
local start, counting = tonumber(ARGV[8]), ARGV[9]

local state = redis.call('HGET', JOB, 'state')
if not state or FINAL[state] then return {'final', state or 'missing'} end
if start and start <= (tonumber(redis.call('HGET', JOB, 'released')) or 0) then
  return {'repeated', state}
end
local runner = redis.call('HGET', JOB, 'runner')
if runner and runner ~= worker then return {'running', runner} end
if start then redis.call('HSET', JOB, 'released', start) end
if death ~= '' then
  count_death(death)
elseif runner and delay_s ~= '' then
  forgive_deaths()
end
leave_suspicion()
redis.call('HDEL', JOB, 'runner')
redis.call('HSET', JOB, 'state', 'pending')
redis.call('ZADD', OPEN, now, ID)
if delay_s ~= '' then
  redis.call('ZADD', DUE, now + tonumber(delay_s), ID)
  keep(DUE)
end
if runner and (delay_s == '' or counting == 'uncounted') then
  redis.call('HINCRBY', JOB, 'attempts', -1)
end
return {'released', 'pending'}
