-- Claim an event of object storage for a job, unless it was seen before or a newer one was.
--
-- KEYS[1]  mark: newest event of one object (hash)
-- ARGV[1]  namespace
-- ARGV[2]  identity: of the event; the same event sent again has the same
-- ARGV[3]  order: kind of the two times below; times of two kinds cannot be compared
-- ARGV[4]  first: earliest time of the event, as text that compares like the time
-- ARGV[5]  last: latest time of the event
-- ARGV[6]  job_id: job that the event becomes part of; '' = none, the event is only noted
-- ARGV[7]  is_alone: '1' if that job has no other image
-- ARGV[8]  lease_s: seconds that the caller has to open the job
-- ARGV[9]  window_s: life of the mark
--
-- Returns {verdict, job, wait_s}; the verdict is
--   'claimed'    open the job; job is the one that an older event became alone, '' = none
--   'duplicate'  the event is part of that job
--   'stale'      a newer event of the object is known
--   'busy'       another call has the object for wait_s seconds more
--
-- A claim counts as kept as soon as its job has a record, so that a caller that dies between the
-- two leaves nothing to repair.
local MARK, NAMESPACE, identity, order = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local first, last, job_id, is_alone = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local lease_s, window_s = tonumber(ARGV[8]), tonumber(ARGV[9])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local known, known_order, known_first, job, alone, held = unpack(redis.call(
  'HMGET', MARK, 'identity', 'order', 'first', 'job', 'alone', 'held_until'))
if known then
  if job ~= '' and job == job_id then return {'claimed', '', '0'} end
  local left_s = (tonumber(held) or 0) - now
  local is_kept = held == ''
  if not is_kept then
    is_kept = redis.call('EXISTS', NAMESPACE .. ':job:' .. job, NAMESPACE .. ':ended:' .. job) > 0
    if is_kept then redis.call('HSET', MARK, 'held_until', '') end
  end
  if known == identity then
    if is_kept then return {'duplicate', job, '0'} end
    if left_s > 0 then return {'busy', job, string.format('%.3f', left_s)} end
  else
    if known_order == order and last < known_first then return {'stale', job, '0'} end
    if not is_kept and left_s > 0 then return {'busy', job, string.format('%.3f', left_s)} end
  end
  if known == identity or not is_kept or alone ~= '1' then job = '' end
end
redis.call('HSET', MARK, 'identity', identity, 'order', order, 'first', first, 'job', job_id,
  'alone', is_alone, 'held_until', job_id == '' and '' or string.format('%.3f', now + lease_s))
redis.call('EXPIRE', MARK, math.ceil(math.max(window_s, lease_s)))
return {'claimed', job or '', '0'}
