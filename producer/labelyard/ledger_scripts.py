"""The Lua scripts of the ledger: each change of a job's record is one atomic step.

Every script gets the same eight keys, in the order of :class:`LedgerKeys`, so that
they share one prelude. Times are Redis' own clock, in seconds: no two machines need
to agree. A record's states and who may change them::

    pending ──start──▶ running ──finish──▶ succeeded | partial | failed
       ▲                  │
       └─── release ◀─────┘          pending | running ──cancel──▶ cancelled
            (retry, hand back)       pending | running ──expire──▶ expired

The first final state stands: each script looks before it writes. A worker says that it
lives and which jobs it runs in a key of its own, which goes with it.
"""

from typing import NamedTuple

# Longest life in seconds of a worker's key after its worker: a death is known by then.
PRESENCE_S = 10


class LedgerKeys(NamedTuple):
    """Keys of a ledger, in the order that the scripts expect.

    Attributes:
        job: Hash: the record of the job at hand.
        open: Sorted set: jobs that are not final, by the time they were last sent.
        due: Sorted set: jobs to send again, by the time they are due.
        expiring: Sorted set: jobs that are not final, by their ``expires_at``.
        open_images: Counter: images of the jobs that are not final.
        totals: Hash: how many jobs came to each final state.
        dead: Sorted set: dead letters, by the time they died.
        owed: Sorted set: finished jobs with deliveries to try again, by when.
    """

    job: str
    open: str
    due: str
    expiring: str
    open_images: str
    totals: str
    dead: str
    owed: str

    @classmethod
    def of(cls, namespace: str, job_id: str) -> "LedgerKeys":
        """Name the keys that *job_id* needs in *namespace*."""
        return cls(
            f"{namespace}:job:{job_id}",
            f"{namespace}:open",
            f"{namespace}:due",
            f"{namespace}:expiring",
            f"{namespace}:open_images",
            f"{namespace}:totals",
            f"{namespace}:dead",
            f"{namespace}:owed",
        )


_PRELUDE = """
local JOB, OPEN, DUE, EXPIRING = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local OPEN_IMAGES, TOTALS, DEAD, OWED = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local ID, OPEN_TTL, RESULT_TTL = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NAMESPACE = ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local stamp = string.format('%.6f', now)
local FINAL = {succeeded=1, partial=1, failed=1, cancelled=1, expired=1}

local function keep(key) redis.call('EXPIRE', key, OPEN_TTL) end

local function finalise(state, result, ttl)
  local images = tonumber(redis.call('HGET', JOB, 'images')) or 0
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
    redis.call('PUBLISH', NAMESPACE .. ':stopped', ID)
  end
end

local function is_overdue()
  local expires_at = tonumber(redis.call('HGET', JOB, 'expires_at'))
  return expires_at and expires_at <= now
end
"""

# ARGV 5.. : message, images, tenant, queue, expires_at, stream, limit, opener. The opener
# is drawn for each call: a call that is repeated because its answer was lost has opened too.
OPEN = (
    _PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
if state then
  local is_ours = redis.call('HGET', JOB, 'opener') == ARGV[12]
  return {is_ours and 'opened' or 'exists', state, stamp}
end
local images, limit = tonumber(ARGV[6]), tonumber(ARGV[11])
if limit > 0 and (tonumber(redis.call('GET', OPEN_IMAGES)) or 0) + images > limit then
  return {'full', redis.call('GET', OPEN_IMAGES) or '0', stamp}
end
redis.call('HSET', JOB, 'state', 'pending', 'message', ARGV[5], 'images', images,
  'tenant', ARGV[7], 'queue', ARGV[8], 'expires_at', ARGV[9], 'stream', ARGV[10],
  'submitted_at', stamp, 'published_at', stamp, 'attempts', 0, 'deaths', 0, 'deaths_alone', 0,
  'opener', ARGV[12])
keep(JOB)
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

# ARGV 5.. : worker, is_alone, quarantine_after, dead_after. A broker may bring a message
# again while its job runs, or so soon after its worker's death that nobody knows of it yet:
# it is sent once more when that worker's key has been renewed or is gone. Who lives and has
# not named the job for longer than that runs it no more.
START = (
    _PRELUDE
    + f"local PRESENCE_S = {PRESENCE_S}"
    + """
local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if FINAL[state] then return {'final', state} end
if is_overdue() then
  finalise('expired', '', RESULT_TTL)
  return {'final', 'expired'}
end
local worker, alone = ARGV[5], ARGV[6]
local runner = redis.call('HGET', JOB, 'runner')
if runner and runner ~= worker then
  local key = NAMESPACE .. ':worker:' .. runner
  local running = redis.call('GET', key)
  if not running then
    redis.call('HINCRBY', JOB, 'deaths', 1)
    if redis.call('HGET', JOB, 'alone') == '1' then redis.call('HINCRBY', JOB, 'deaths_alone', 1) end
    redis.call('HSET', JOB, 'last_death', 'its worker ' .. runner .. ' died or hung')
    redis.call('HDEL', JOB, 'runner')
  elseif string.find(running, '"' .. ID .. '"', 1, true)
         or now - tonumber(redis.call('HGET', JOB, 'started_at')) < PRESENCE_S then
    redis.call('ZADD', DUE, now + math.max(redis.call('PTTL', key), 0) / 1000 + 0.05, ID)
    keep(DUE)
    return {'elsewhere', runner}
  end
end
local deaths = tonumber(redis.call('HGET', JOB, 'deaths'))
local deaths_alone = tonumber(redis.call('HGET', JOB, 'deaths_alone'))
if deaths_alone >= tonumber(ARGV[8]) then
  return {'dead', tostring(deaths), redis.call('HGET', JOB, 'last_death') or ''}
end
redis.call('ZADD', OPEN, now, ID)
if deaths >= tonumber(ARGV[7]) and alone ~= '1' then
  redis.call('HSET', JOB, 'state', 'pending', 'queue', 'quarantine', 'published_at', stamp)
  return {'quarantine', tostring(deaths)}
end
redis.call('ZREM', DUE, ID)
redis.call('HSET', JOB, 'state', 'running', 'runner', worker, 'alone', alone, 'started_at', stamp)
local attempts = redis.call('HINCRBY', JOB, 'attempts', 1)
keep(JOB)
return {'run', tostring(attempts), tostring(deaths), redis.call('HGET', JOB, 'submitted_at'), stamp}
"""
)

# ARGV 5.. : worker, delay_s ('' = hand back to whoever holds the message), death ('' = none)
RELEASE = (
    _PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
if not state or FINAL[state] then return {'final', state or 'missing'} end
local runner = redis.call('HGET', JOB, 'runner')
if runner and runner ~= ARGV[5] then return {'running', runner} end
if ARGV[7] ~= '' then
  redis.call('HINCRBY', JOB, 'deaths', 1)
  if redis.call('HGET', JOB, 'alone') == '1' then redis.call('HINCRBY', JOB, 'deaths_alone', 1) end
  redis.call('HSET', JOB, 'last_death', ARGV[7])
end
redis.call('HDEL', JOB, 'runner')
redis.call('HSET', JOB, 'state', 'pending')
redis.call('ZADD', OPEN, now, ID)
if ARGV[6] ~= '' then
  redis.call('ZADD', DUE, now + tonumber(ARGV[6]), ID)
  keep(DUE)
elseif runner then
  redis.call('HINCRBY', JOB, 'attempts', -1)
end
return {'released', 'pending'}
"""
)

# ARGV 5.. : state, result, undelivered, is_dead. A call that is repeated because its answer
# was lost finds its own result. Who finishes delivers at once; what is owed a minute later
# is tried again, for its worker and even its message may be gone.
FINISH = (
    _PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
if not state then return {'missing'} end
if FINAL[state] then
  local is_ours = ARGV[6] ~= '' and redis.call('HGET', JOB, 'result') == ARGV[6]
  return {is_ours and 'finished' or 'final', state}
end
if ARGV[5] == 'expired' and not is_overdue() then return {'early', state} end
local ttl = RESULT_TTL
if ARGV[7] ~= '' then
  redis.call('HSET', JOB, 'undelivered', ARGV[7])
  redis.call('ZADD', OWED, now + 60, ID)
  keep(OWED)
end
if ARGV[8] == '1' then
  redis.call('ZADD', DEAD, now, ID)
  keep(DEAD)
  ttl = OPEN_TTL
end
finalise(ARGV[5], ARGV[6], ttl)
return {'finished', ARGV[5]}
"""
)

# ARGV 5.. : none. A dead letter becomes a new job under its old id.
REPLAY = (
    _PRELUDE
    + """
if redis.call('ZREM', DEAD, ID) == 0 then return {'missing'} end
if not redis.call('HGET', JOB, 'message') then return {'missing'} end
local queue = redis.call('HGET', JOB, 'queue')
if queue == 'quarantine' then queue = 'bulk' end
redis.call('HSET', JOB, 'state', 'pending', 'queue', queue, 'attempts', 0, 'deaths', 0,
  'deaths_alone', 0, 'published_at', stamp)
redis.call('HDEL', JOB, 'result', 'finished_at', 'runner', 'last_death', 'undelivered')
redis.call('ZADD', OPEN, now, ID)
keep(OPEN)
redis.call('INCRBY', OPEN_IMAGES, redis.call('HGET', JOB, 'images'))
keep(OPEN_IMAGES)
redis.call('ZADD', DUE, now, ID)
keep(DUE)
local expires_at = redis.call('HGET', JOB, 'expires_at')
if expires_at and expires_at ~= '' then
  redis.call('ZADD', EXPIRING, expires_at, ID)
  keep(EXPIRING)
end
keep(JOB)
return {'opened', 'pending', stamp}
"""
)

# ARGV 5.. : none. Note that a message for the job was sent just now.
SENT = (
    _PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
redis.call('ZREM', DUE, ID)
if not state or FINAL[state] then return {'final', state or 'missing'} end
redis.call('HSET', JOB, 'published_at', stamp)
redis.call('ZADD', OPEN, now, ID)
return {'sent', state, stamp}
"""
)

# ARGV 5.. : undelivered. What is owed is tried again after as long as the job has been
# finished: 2 s, 4 s, 8 s, up to an hour, until the record goes.
DELIVERED = (
    _PRELUDE
    + """
local finished_at = tonumber(redis.call('HGET', JOB, 'finished_at'))
if not finished_at or ARGV[5] == '' then redis.call('ZREM', OWED, ID) end
if not finished_at then return {'missing'} end
redis.call('HSET', JOB, 'undelivered', ARGV[5])
if ARGV[5] == '' then return {'delivered'} end
redis.call('ZADD', OWED, now + math.max(2, math.min(3600, now - finished_at)), ID)
keep(OWED)
return {'owed'}
"""
)
