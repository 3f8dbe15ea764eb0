-- Start an attempt, or return why not. Counts a death if the last attempt never ended.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]   worker: the worker that wants to run the job
-- ARGV[6]   isolation: 0, s, b or 1; see count_death in _prelude.lua
-- ARGV[7]   quarantine_after: deaths that make a job a suspect
-- ARGV[8]   dead_after: deaths as a suspect, one of them alone, that bury it
-- ARGV[9]   call: drawn for each message receipt: a repeated call gets the same attempt again
-- ARGV[10]  tenant: the tenant in the message; '' skips the comparison of contents
-- ARGV[11]  digest: digest of the job in the message
-- ARGV[12]  published_at: when the message was published, by its own word; 0 = it has none
-- ARGV[13]  returned_by: 'worker:start' of the attempt that a worker gave back with this message
--           while the ledger was away; '' = none
--
-- Returns
--   {'run', attempt, deaths, submitted_at, now, start, seconds until it expires or ''}
--   {'final', state}
--   {'missing'}                there is no record
--   {'outlived'}               the message is older than a final record lives: it may be that of
--                              a job whose record is gone, and is not adopted
--   {'conflict', state}        the record is another job's
--   {'elsewhere', runner}      another worker runs it
--   {'to_quarantine', deaths}  it is a suspect: another queue brings it
--   {'isolate', deaths}        its next death may bury it: run it alone, and call again
--   {'dead', deaths, reason}
--
-- A death is counted for a job that ran as its worker's suspect, or among others without any; a
-- job beside a suspect has it counted as half of one, in deaths_beside. A job is dead after
-- dead_after deaths as a suspect, of which one was alone in its worker.
-- A broker may bring a message again while its job runs, or so soon after its worker's death
-- that nobody knows of it yet: it is sent once more when that worker's key has been renewed or
-- is gone. A live worker that has not named the job for longer than that runs it no more.
-- start counts the attempts and is never taken back, so that an attempt that is ended twice is
-- recognised.
--
-- @constants PRESENCE_S, UNCONFIRMED_DEATHS, SUSPECT_TTL_S, QUARANTINE_QUEUE
-- @include _prelude.lua
local worker, alone = ARGV[5], ARGV[6]
local quarantine_after, dead_after = tonumber(ARGV[7]), tonumber(ARGV[8])
local call, tenant, digest = ARGV[9], ARGV[10], ARGV[11]
local published_at, returned_by = tonumber(ARGV[12]) or 0, ARGV[13]

local state = redis.call('HGET', JOB, 'state')
if not state then
  local ended = redis.call('GET', TOMBSTONE)
  if ended then return {'final', ended} end
  if published_at > 0 and now - published_at > RESULT_TTL then return {'outlived'} end
  return {'missing'}
end
if is_other_job(tenant, digest) then return {'conflict', state} end
if FINAL[state] then return {'final', state} end
if is_overdue() then
  finalise('expired', '', RESULT_TTL)
  return {'final', 'expired'}
end
local runner = redis.call('HGET', JOB, 'runner')
local start = tonumber(redis.call('HGET', JOB, 'start')) or 0

local function run(attempts, deaths)
  local expires_at = tonumber(redis.call('HGET', JOB, 'expires_at'))
  local to_live = expires_at and string.format('%.6f', expires_at - now) or ''
  local submitted_at = redis.call('HGET', JOB, 'submitted_at')
  return {'run', tostring(attempts), tostring(deaths), submitted_at, stamp, tostring(start), to_live}
end

if call ~= '' and runner == worker and redis.call('HGET', JOB, 'start_call') == call then
  return run(redis.call('HGET', JOB, 'attempts'), redis.call('HGET', JOB, 'deaths'))
end
if runner and runner ~= worker and returned_by == runner .. ':' .. start then
  redis.call('HDEL', JOB, 'runner')
  redis.call('HINCRBY', JOB, 'attempts', -1)
elseif runner and runner ~= worker then
  local key = NAMESPACE .. ':worker:' .. runner
  local running = redis.call('GET', key)
  if not running then
    local suspect = redis.call('GET', NAMESPACE .. ':suspect:' .. runner)
    if suspect and suspect ~= ID then
      redis.call('HINCRBY', JOB, 'deaths_beside', 1)
    else
      count_death('its worker ' .. runner .. ' died or hung')
    end
    redis.call('HDEL', JOB, 'runner')
  elseif string.find(running, '"' .. ID .. '"', 1, true)
         or now - tonumber(redis.call('HGET', JOB, 'started_at')) < PRESENCE_S then
    redis.call('ZADD', DUE, now + math.max(redis.call('PTTL', key), 0) / 1000 + 0.05, ID)
    keep(DUE)
    return {'elsewhere', runner}
  end
end
local function deaths_of(kind) return tonumber(redis.call('HGET', JOB, kind)) or 0 end
local deaths, deaths_alone = deaths_of('deaths'), deaths_of('deaths_alone')
local blamed = deaths_alone + deaths_of('deaths_suspect')
if (deaths_alone > 0 and blamed >= dead_after) or blamed >= dead_after + UNCONFIRMED_DEATHS then
  return {'dead', tostring(deaths), redis.call('HGET', JOB, 'last_death') or ''}
end
redis.call('ZADD', OPEN, now, ID)
local is_suspect = deaths + deaths_of('deaths_beside') / 2 >= quarantine_after
if is_suspect and alone == '0' then
  move_backlog(QUARANTINE_QUEUE)
  redis.call('HSET', JOB, 'state', 'pending', 'queue', QUARANTINE_QUEUE, 'published_at', stamp)
  redis.call('ZADD', DUE, now, ID)
  keep(DUE)
  return {'to_quarantine', tostring(deaths)}
end
if is_suspect and alone == 's' and blamed >= dead_after - 1 then
  return {'isolate', tostring(deaths)}
end
if alone ~= '0' then
  redis.call('SET', NAMESPACE .. ':suspect:' .. worker, ID, 'EX', SUSPECT_TTL_S)
end
redis.call('ZREM', DUE, ID)
start = math.max(start, tonumber(redis.call('HGET', JOB, 'released')) or 0) + 1
redis.call('HSET', JOB, 'state', 'running', 'runner', worker, 'alone', alone, 'started_at', stamp,
  'start', start, 'start_call', call)
local attempts = redis.call('HINCRBY', JOB, 'attempts', 1)
keep(JOB)
return run(attempts, deaths)
