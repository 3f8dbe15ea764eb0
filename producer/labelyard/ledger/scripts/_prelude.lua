-- Prelude of the scripts that change a job's record: keys, arguments, clock, shared functions.
--
-- KEYS[1]  record of the job (hash)
-- KEYS[2]  open jobs (sorted set)
-- KEYS[3]  due jobs (sorted set)
-- KEYS[4]  expiring jobs (sorted set)
-- KEYS[5]  open images (counter)
-- KEYS[6]  totals (hash)
-- KEYS[7]  dead letters (sorted set)
-- KEYS[8]  pending deliveries (sorted set)
-- KEYS[9]  tombstone of the job (string)
-- KEYS[10]  backlog by queue and tenant (hash)
-- ARGV[1]  job_id
-- ARGV[2]  open_ttl_s
-- ARGV[3]  result_ttl_s
-- ARGV[4]  namespace
--
-- Times are Redis' own clock in seconds: no two machines need to agree. A client repeats a call
-- whose reply was lost, so every script recognises its own repetition.
--
-- @constants FORGIVEN_TIMES, STREAM_MAX_ENTRIES, STREAM_RESULT_MAX_BYTES
-- @include _events.lua
local JOB, OPEN, DUE, EXPIRING = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local OPEN_IMAGES, TOTALS, DEAD_LETTERS, PENDING_DELIVERIES = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local TOMBSTONE, BACKLOG = KEYS[9], KEYS[10]
local ID, OPEN_TTL, RESULT_TTL = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NAMESPACE = ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local stamp = string.format('%.6f', now)
local FINAL = {succeeded=1, partial=1, failed=1, cancelled=1, expired=1}

local function keep(key) redis.call('EXPIRE', key, OPEN_TTL) end

-- Count an open job in the backlog of its queue and tenant; false if it was counted before.
local function join_backlog(queue, tenant, images, at)
  local by_age = NAMESPACE .. ':open:' .. queue
  local added = redis.call('ZADD', by_age, at, tenant .. ':' .. images .. ':' .. ID)
  keep(by_age)
  if added == 0 then return false end
  redis.call('HINCRBY', BACKLOG, 'images:' .. queue .. ':' .. tenant, images)
  redis.call('HINCRBY', BACKLOG, 'jobs:' .. queue .. ':' .. tenant, 1)
  keep(BACKLOG)
  return true
end

-- A job that an earlier version opened may never have been counted.
local function leave_backlog(queue, tenant, images)
  if not (queue and tenant and tonumber(images)) then return end
  local member = tenant .. ':' .. images .. ':' .. ID
  if redis.call('ZREM', NAMESPACE .. ':open:' .. queue, member) == 0 then return end
  for unit, number in pairs({images = images, jobs = 1}) do
    local field = unit .. ':' .. queue .. ':' .. tenant
    if redis.call('HINCRBY', BACKLOG, field, -number) <= 0 then
      redis.call('HDEL', BACKLOG, field)
    end
  end
end

-- Count an open job in another queue, with its age.
local function move_backlog(to)
  local queue, tenant, images, submitted_at = unpack(
    redis.call('HMGET', JOB, 'queue', 'tenant', 'images', 'submitted_at'))
  local member = tenant .. ':' .. images .. ':' .. ID
  local at = redis.call('ZSCORE', NAMESPACE .. ':open:' .. queue, member) or submitted_at
  leave_backlog(queue, tenant, images)
  join_backlog(to, tenant, images, at)
end

-- Write the tombstone of a job whose message may outlive its record.
local function bury(state)
  redis.call('SET', TOMBSTONE, state, 'EX', math.max(2 * RESULT_TTL, 3600))
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

-- Write the event of a final record: a job's, or that of a run's shard. A run writes its own event;
-- its plan and its end are nobody else's concern. Returns the ids of the record's events.
local function add_record_event(event, task, event_ids)
  event.kind, event.id = 'job', ID
  if task and task ~= '' then
    if task ~= 'labelyard.shard' then return event_ids or '' end
    local message = redis.call('HGET', JOB, 'message') or ''
    event.kind, event.parent = 'shard', string.match(message, '"run_id": ?"([^"]+)"')
  end
  local event_id = add_event(NAMESPACE, OPEN_TTL, now, event)
  return event_ids and event_ids .. ' ' .. event_id or event_id
end

local function finalise(state, result, ttl)
  local images, queue, tenant, tag, task, event_ids = unpack(
    redis.call('HMGET', JOB, 'images', 'queue', 'tenant', 'tag', 'task', 'event_ids'))
  leave_suspicion()
  event_ids = add_record_event({state = state, tenant = tenant, tag = tag, images = images,
    result = result}, task, event_ids)
  redis.call('HSET', JOB, 'state', state, 'finished_at', stamp, 'result', result,
    'event_ids', event_ids)
  redis.call('HDEL', JOB, 'runner')
  redis.call('EXPIRE', JOB, ttl)
  redis.call('ZREM', OPEN, ID)
  redis.call('ZREM', DUE, ID)
  redis.call('ZREM', EXPIRING, ID)
  leave_backlog(queue, tenant, images)
  if redis.call('DECRBY', OPEN_IMAGES, tonumber(images) or 0) < 0 then redis.call('SET', OPEN_IMAGES, 0) end
  keep(OPEN_IMAGES)
  redis.call('HINCRBY', TOTALS, state, 1)
  keep(TOTALS)
  local image_totals = NAMESPACE .. ':image_totals'
  redis.call('HINCRBY', image_totals, state, tonumber(images) or 0)
  keep(image_totals)
  local stream, events = unpack(redis.call('HMGET', JOB, 'stream', 'events'))
  if stream and stream ~= '' then
    stream = NAMESPACE .. ':stream:' .. stream
    local entry = {'job_id', ID, 'status', state, 'result', result}
    if #result > STREAM_RESULT_MAX_BYTES then  -- a long result is not kept twice over
      entry = {'job_id', ID, 'status', state, 'result_key', JOB, 'result_bytes', #result}
    end
    local event = redis.call('XADD', stream, 'MAXLEN', '~', STREAM_MAX_ENTRIES, '*', unpack(entry))
    redis.call('HSET', JOB, 'events', (events or '') .. ' ' .. event)
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
