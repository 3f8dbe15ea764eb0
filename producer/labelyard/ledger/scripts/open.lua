-- Open a job's record, unless there is one under its id.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]   message: the job as JSON
-- ARGV[6]   images: number of its images
-- ARGV[7]   tenant
-- ARGV[8]   queue
-- ARGV[9]   expires_at: seconds since the epoch; '' = never
-- ARGV[10]  stream: name of the event stream; '' = none
-- ARGV[11]  limit: most open images; 0 = any number
-- ARGV[12]  opener: drawn for each call: a repeated call whose reply was lost has opened it too
-- ARGV[13]  digest: digest of the job; '' = not known
-- ARGV[14]  source: 'submit', 'adopt' for a message that came without a record, or 'run' for a
--           part of a run
-- ARGV[15]  prompts: number of prompts that the job brings with it
-- ARGV[16]  task: task that runs it; '' = that of classifications
-- ARGV[17]  deaths: deaths that it inherits from the job it is a part of
-- ARGV[18]  deaths_suspect: those of them as a suspect
--
-- Returns {verdict, state, now, ...}; the verdict is
--   'opened'    a new record
--   'exists'    the same job
--   'conflict'  another job, or another tenant's
--   'ended'     an adopted job was final, and its record is gone
--   'full'      the limit is reached; the number of open images stands in place of the state
--   'refused'   a quota of the tenant is used up; its name stands in place of the state, and its
--               limit, its use and the seconds until the job may pass follow
--
-- An adopted message is charged to its tenant's quotas, but not refused: the broker has accepted
-- it. A part of a run is as large as its worker can do in half a minute: one that is larger than
-- a limit is opened when nothing else is.
--
-- @constants JOB_INDEX_MAX_ENTRIES
-- @include _prelude.lua
-- @include _quotas.lua
local message, images, tenant, queue = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local expires_at, stream, limit = ARGV[9], ARGV[10], tonumber(ARGV[11])
local opener, digest, source = ARGV[12], ARGV[13], ARGV[14]
local prompts, task, deaths, deaths_suspect = tonumber(ARGV[15]), ARGV[16], ARGV[17], ARGV[18]
local counted = source == 'run' and limit > 0 and math.min(images, limit) or images

local state = redis.call('HGET', JOB, 'state')
if state then
  if redis.call('HGET', JOB, 'opener') == opener then return {'opened', state, stamp} end
  return {is_other_job(tenant, digest) and 'conflict' or 'exists', state, stamp}
end
local ended = redis.call('GET', TOMBSTONE)
if ended and source == 'adopt' then return {'ended', ended, stamp} end
if limit > 0 and (tonumber(redis.call('GET', OPEN_IMAGES)) or 0) + counted > limit then
  return {'full', redis.call('GET', OPEN_IMAGES) or '0', stamp}
end
local refused = charge(tenant, images, prompts, source)
if refused then
  local quota, most, used, wait_s = unpack(refused)
  return {'refused', quota, stamp, tostring(most), tostring(used), string.format('%.6f', wait_s)}
end
redis.call('HSET', JOB, 'state', 'pending', 'message', message, 'images', images,
  'tenant', tenant, 'queue', queue, 'expires_at', expires_at, 'stream', stream,
  'submitted_at', stamp, 'published_at', stamp, 'attempts', 0, 'deaths', deaths, 'deaths_alone', 0,
  'opener', opener, 'digest', digest, 'source', source)
if task ~= '' then redis.call('HSET', JOB, 'task', task, 'deaths_suspect', deaths_suspect) end
keep(JOB)
if ended then redis.call('DEL', TOMBSTONE) end
redis.call('ZADD', OPEN, now, ID)
keep(OPEN)
-- A job whose record was lost while it was open may still be counted.
if join_backlog(queue, tenant, images, now) then redis.call('INCRBY', OPEN_IMAGES, images) end
keep(OPEN_IMAGES)
local tag = string.match(message, '^{"version":1,"job_id":"[^"]*","tenant":"[^"]*","tag":"([^"]*)"')
if tag then redis.call('HSET', JOB, 'tag', tag) end
local index = NAMESPACE .. ':jobs'
redis.call('ZADD', index, now, ID)
keep(index)
if redis.call('ZCARD', index) > JOB_INDEX_MAX_ENTRIES then redis.call('ZPOPMIN', index) end
if expires_at ~= '' then
  redis.call('ZADD', EXPIRING, expires_at, ID)
  keep(EXPIRING)
end
return {'opened', 'pending', stamp}
