"""The Lua scripts of the ledger: each change of a job's record is one atomic step.

Every script gets the same nine keys, in the order of :class:`LedgerKeys`, so that
they share one prelude; the scripts of ``ledger_upkeep_scripts.py`` do, too. Every script
recognises its own repetition: a client repeats a call whose reply was lost. Times are Redis' own clock, in seconds: no two machines need
to agree. A record's states and who may change them::

    pending ──start──▶ running ──finish──▶ succeeded | partial | failed
       ▲                  │
       └─── release ◀─────┘          pending | running ──cancel──▶ cancelled
            (retry, hand back)       pending | running ──expire──▶ expired

The first final state stands: each script looks before it writes. A worker says that it
lives and which jobs it runs in a key of its own, which goes with it.
"""

# Longest life in seconds of a worker's key after its worker: a death is known by then.
PRESENCE_S = 10
# Deaths beyond dead_after that bury a suspect which never had its worker to itself.
UNCONFIRMED_DEATHS = 2
# Life in seconds of the key that names a worker's suspect: longer than a job takes to come
# again after its worker's death.
SUSPECT_TTL_S = 86_400
# Seconds that a worker holds a finished job's deliveries without renewing its lease.
DELIVERY_LEASE_S = 60
# Seconds that a record outlives its finish while deliveries are pending: they are tried
# for a day, and the last pause is an hour at most.
PENDING_DELIVERY_TTL_S = 86_400 + 2 * 3_600


# KEYS: those of LedgerKeys. ARGV 1 to 4: job id, open_ttl_s, result_ttl_s, namespace.
PRELUDE = """
local JOB, OPEN, DUE, EXPIRING = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local OPEN_IMAGES, TOTALS, DEAD, OWED = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local ENDED = KEYS[9]
local ID, OPEN_TTL, RESULT_TTL = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NAMESPACE = ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local stamp = string.format('%.6f', now)
local FINAL = {succeeded=1, partial=1, failed=1, cancelled=1, expired=1}
-- Times that a job which came back alive is cleared of its workers' deaths.
local FORGIVEN_TIMES = 5

local function keep(key) redis.call('EXPIRE', key, OPEN_TTL) end

-- Keep word of a job whose message may outlive its record.
local function bury(state)
  redis.call('SET', ENDED, state, 'EX', math.max(2 * RESULT_TTL, 3600))
end

-- 'alone' of a record is how it runs: 0 among others, s as its worker's only suspect, b the same
-- after it could not have its worker to itself, 1 with its worker to itself.
local function count_death(reason)
  local mode = redis.call('HGET', JOB, 'alone')
  redis.call('HINCRBY', JOB, 'deaths', 1)
  if mode == '1' then redis.call('HINCRBY', JOB, 'deaths_alone', 1) end
  if mode == 's' or mode == 'b' then redis.call('HINCRBY', JOB, 'deaths_suspect', 1) end
  redis.call('HSET', JOB, 'last_death', reason)
end

-- Clear the deaths of a job that came back alive, a few times at most: else a job that
-- alternates between waiting and killing would never be buried.
local function forgive_deaths()
  local deaths, beside = unpack(redis.call('HMGET', JOB, 'deaths', 'deaths_beside'))
  if (tonumber(deaths) or 0) + (tonumber(beside) or 0) == 0 then return end
  if redis.call('HINCRBY', JOB, 'forgiven', 1) > FORGIVEN_TIMES then return end
  redis.call('HSET', JOB, 'deaths', 0, 'deaths_suspect', 0, 'deaths_alone', 0, 'deaths_beside', 0)
end

-- Note that the job is its worker's suspect no more. The key of a worker that died stays: it
-- clears those that ran beside its suspect.
local function leave_suspicion()
  local mode, runner = unpack(redis.call('HMGET', JOB, 'alone', 'runner'))
  if not (mode and runner) or mode == '0' then return end
  local key = NAMESPACE .. ':suspect:' .. runner
  if redis.call('GET', key) == ID then redis.call('DEL', key) end
end

-- A record of an earlier version has no digest.
local function is_other_job(tenant, digest)
  if tenant == '' then return false end
  if redis.call('HGET', JOB, 'tenant') ~= tenant then return true end
  local known = redis.call('HGET', JOB, 'digest')
  return known and known ~= '' and digest ~= '' and known ~= digest
end

local function finalise(state, result, ttl)
  local images = tonumber(redis.call('HGET', JOB, 'images')) or 0
  leave_suspicion()
  redis.call('HSET', JOB, 'state', state, 'finished_at', stamp, 'result', result)
  redis.call('HDEL', JOB, 'runner')
  redis.call('EXPIRE', JOB, ttl)
  redis.call('ZREM', OPEN, ID)
  redis.call('ZREM', DUE, ID)
  redis.call('ZREM', EXPIRING, ID)
  if redis.call('DECRBY', OPEN_IMAGES, images) < 0 then redis.call('SET', OPEN_IMAGES, 0) end
  keep(OPEN_IMAGES)
  redis.call('HINCRBY', TOTALS, state, 1)
  keep(TOTALS)
  local stream = redis.call('HGET', JOB, 'stream')
  if stream and stream ~= '' then
    stream = NAMESPACE .. ':stream:' .. stream
    local entry = {'job_id', ID, 'status', state, 'result', result}
    if #result > 65536 then  -- a long result is not kept twice over
      entry = {'job_id', ID, 'status', state, 'result_key', JOB, 'result_bytes', #result}
    end
    redis.call('XADD', stream, 'MAXLEN', '~', 100000, '*', unpack(entry))
    redis.call('EXPIRE', stream, OPEN_TTL)
  end
  redis.call('PUBLISH', NAMESPACE .. ':done:' .. ID, state)
  if state == 'cancelled' or state == 'expired' then
    bury(state)
    redis.call('PUBLISH', NAMESPACE .. ':stopped', ID)
  elseif redis.call('HGET', JOB, 'source') == 'adopt' then
    bury(state)
  end
end

local function is_overdue()
  local expires_at = tonumber(redis.call('HGET', JOB, 'expires_at'))
  return expires_at and expires_at <= now
end
"""

# Open a job's record, unless there is one under its id.
# ARGV 5..14: message, images, tenant, queue, expires_at, stream, limit, opener, digest, source.
#   opener is drawn for each call: a call that is repeated because its reply was lost has
#   opened the job too. source is 'submit', or 'adopt' for a message that came without a record.
# Returns {verdict, state, now}: 'opened'; 'exists' (the same job); 'conflict' (another job, or
#   another tenant's); 'ended' (an adopted job was final, and its record is gone); or 'full',
#   with the number of open images in place of the state.
OPEN = (
    PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
if state then
  if redis.call('HGET', JOB, 'opener') == ARGV[12] then return {'opened', state, stamp} end
  return {is_other_job(ARGV[7], ARGV[13]) and 'conflict' or 'exists', state, stamp}
end
local ended = redis.call('GET', ENDED)
if ended and ARGV[14] == 'adopt' then return {'ended', ended, stamp} end
local images, limit = tonumber(ARGV[6]), tonumber(ARGV[11])
if limit > 0 and (tonumber(redis.call('GET', OPEN_IMAGES)) or 0) + images > limit then
  return {'full', redis.call('GET', OPEN_IMAGES) or '0', stamp}
end
redis.call('HSET', JOB, 'state', 'pending', 'message', ARGV[5], 'images', images,
  'tenant', ARGV[7], 'queue', ARGV[8], 'expires_at', ARGV[9], 'stream', ARGV[10],
  'submitted_at', stamp, 'published_at', stamp, 'attempts', 0, 'deaths', 0, 'deaths_alone', 0,
  'opener', ARGV[12], 'digest', ARGV[13], 'source', ARGV[14])
keep(JOB)
if ended then redis.call('DEL', ENDED) end
redis.call('ZADD', OPEN, now, ID)
keep(OPEN)
redis.call('INCRBY', OPEN_IMAGES, images)
keep(OPEN_IMAGES)
if ARGV[9] ~= '' then
  redis.call('ZADD', EXPIRING, ARGV[9], ID)
  keep(EXPIRING)
end
return {'opened', 'pending', stamp}
"""
)

# Begin an attempt, or tell why not.
# ARGV 5..13: worker, mode (0, s, b or 1, see the prelude), quarantine_after, dead_after, call, tenant, digest, published_at,
#   returned_by. call is drawn for each message receipt: a repeated call gets the same attempt
#   again. published_at is the message's own word, 0 if it has none. returned_by is
#   'worker:start' of the attempt that a worker gave back while the ledger was away.
# Returns {'run', attempt, deaths, submitted_at, now, start, seconds to live or ''}, {'final',
#   state}, {'missing'}, {'outlived'}, {'conflict', state}, {'elsewhere', runner},
#   {'to_quarantine', deaths}, {'isolate', deaths} (its next death may bury it: let it have its
#   worker to itself, and call again) or {'dead', deaths, reason}.
# A death is counted for a job that ran as its worker's suspect, or among others without any; a
# job beside a suspect has it counted as half of one, in deaths_beside. A job is dead after
# dead_after deaths as a suspect, of which one was alone in its worker.
# A broker may bring a message again while its job runs, or so soon after its worker's death
# that nobody knows of it yet: it is sent once more when that worker's key has been renewed or
# is gone. Who lives and has not named the job for longer than that runs it no more.
# A message that is older than a final record lives may be that of a job whose record is gone:
# it is not adopted. start counts the attempts and is never taken back, so that the end of
# one is recognised when it is told twice.
START = (
    PRELUDE
    + f"local PRESENCE_S, UNCONFIRMED = {PRESENCE_S}, {UNCONFIRMED_DEATHS} "
    + f"local SUSPECT_TTL_S = {SUSPECT_TTL_S}"
    + """
local state = redis.call('HGET', JOB, 'state')
if not state then
  local ended = redis.call('GET', ENDED)
  if ended then return {'final', ended} end
  local published_at = tonumber(ARGV[12]) or 0
  if published_at > 0 and now - published_at > RESULT_TTL then return {'outlived'} end
  return {'missing'}
end
if is_other_job(ARGV[10], ARGV[11]) then return {'conflict', state} end
if FINAL[state] then return {'final', state} end
if is_overdue() then
  finalise('expired', '', RESULT_TTL)
  return {'final', 'expired'}
end
local worker, alone, call = ARGV[5], ARGV[6], ARGV[9]
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
if runner and runner ~= worker and ARGV[13] == runner .. ':' .. start then
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
local blamed, dead_after = deaths_alone + deaths_of('deaths_suspect'), tonumber(ARGV[8])
if (deaths_alone > 0 and blamed >= dead_after) or blamed >= dead_after + UNCONFIRMED then
  return {'dead', tostring(deaths), redis.call('HGET', JOB, 'last_death') or ''}
end
redis.call('ZADD', OPEN, now, ID)
local is_suspect = deaths + deaths_of('deaths_beside') / 2 >= tonumber(ARGV[7])
if is_suspect and alone == '0' then
  redis.call('HSET', JOB, 'state', 'pending', 'queue', 'quarantine', 'published_at', stamp)
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
"""
)

# End an attempt without a result.
# ARGV 5..9: worker, delay_s ('' = the broker still holds the message), death ('' = none),
#   start (the number that START gave; '' = not known), 'uncounted' (optional: the attempt does
#   not count).
# Returns {'released', 'pending'}, {'repeated', state}, {'running', runner} (another worker has
#   the job) or {'final', state or 'missing'}.
# A job that comes back alive, to be sent again later, is cleared of its workers' deaths: one
# that waits for an absent storage is begun every few seconds, and would else collect the
# deaths of workers that were killed for other reasons.
RELEASE = (
    PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
if not state or FINAL[state] then return {'final', state or 'missing'} end
local start = tonumber(ARGV[8])
if start and start <= (tonumber(redis.call('HGET', JOB, 'released')) or 0) then
  return {'repeated', state}
end
local runner = redis.call('HGET', JOB, 'runner')
if runner and runner ~= ARGV[5] then return {'running', runner} end
if start then redis.call('HSET', JOB, 'released', start) end
if ARGV[7] ~= '' then
  count_death(ARGV[7])
elseif runner and ARGV[6] ~= '' then
  forgive_deaths()
end
leave_suspicion()
redis.call('HDEL', JOB, 'runner')
redis.call('HSET', JOB, 'state', 'pending')
redis.call('ZADD', OPEN, now, ID)
if ARGV[6] ~= '' then
  redis.call('ZADD', DUE, now + tonumber(ARGV[6]), ID)
  keep(DUE)
end
if runner and (ARGV[6] == '' or ARGV[9] == 'uncounted') then
  redis.call('HINCRBY', JOB, 'attempts', -1)
end
return {'released', 'pending'}
"""
)

# Make a job final, unless it is.
# ARGV 5..11: state, result, undelivered, is_dead, ender (drawn for each call), deliverer ('' =
#   whichever worker has room, due_in_s from now), due_in_s.
# Returns {'finished', state}, {'final', state} (the first final state stands), {'early', state}
#   (it has not expired yet) or {'missing'}.
# A call that is repeated because its reply was lost finds its own ender or its own result,
# even if the dead letter was replayed meanwhile. The deliverer holds a lease on the pending
# deliveries; when it ends without an outcome, another worker takes them over.
FINISH = (
    PRELUDE
    + f"local LEASE_S, PENDING_TTL_S = {DELIVERY_LEASE_S}, {PENDING_DELIVERY_TTL_S}"
    + """
local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if ARGV[9] ~= '' and redis.call('HGET', JOB, 'ender') == ARGV[9] then
  return {'finished', ARGV[5]}
end
if FINAL[state] then
  local is_ours = ARGV[6] ~= '' and redis.call('HGET', JOB, 'result') == ARGV[6]
  return {is_ours and 'finished' or 'final', state}
end
if ARGV[5] == 'expired' and not is_overdue() then return {'early', state} end
local ttl = RESULT_TTL
redis.call('HSET', JOB, 'ender', ARGV[9])
if ARGV[7] ~= '' then
  local deliverer = ARGV[10] or ''
  redis.call('HSET', JOB, 'undelivered', ARGV[7], 'deliverer', deliverer)
  redis.call('ZADD', OWED, now + (deliverer == '' and tonumber(ARGV[11] or 0) or LEASE_S), ID)
  keep(OWED)
  ttl = math.max(ttl, PENDING_TTL_S)
end
if ARGV[8] == '1' then
  redis.call('ZADD', DEAD, now, ID)
  keep(DEAD)
  ttl = math.max(ttl, OPEN_TTL)
end
finalise(ARGV[5], ARGV[6], ttl)
return {'finished', ARGV[5]}
"""
)
