-- Prelude of the scripts of a group of consumers: keys, arguments, clock, gaps.
--
-- KEYS[1]  events of the namespace (stream)
-- KEYS[2]  record of the group (hash)
-- KEYS[3]  groups (sorted set)
-- KEYS[4]  numbers of erased events (sorted set)
-- ARGV[1]  namespace
-- ARGV[2]  ttl_s: life of the group after its last use
-- ARGV[3]  group
--
-- The record holds the group's position, the id of the last event that was given to one of its
-- consumers, and its pending gap: events that were gone before any consumer could handle them.
--
-- @include _events.lua
local STREAM, RECORD, GROUPS, ERASED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local NAMESPACE, TTL, GROUP = ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local now_ms = math.floor(now * 1000)

local function keep_group()
  redis.call('EXPIRE', RECORD, TTL)
  redis.call('EXPIRE', STREAM, TTL)
  redis.call('ZADD', GROUPS, now, GROUP)
  redis.call('EXPIRE', GROUPS, TTL)
end

-- Return the position before the oldest event that is left.
local function before_first()
  local first = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
  if not first then return (last_event(NAMESPACE, TTL, now)) end
  local ms, number = event_position(first[1])
  return event_id_of(ms, number - 1)
end

local function count_lost(from, to)
  return math.max(0, to - from + 1 - redis.call('ZCOUNT', ERASED, from, to))
end

-- Keep a gap until a consumer acknowledges it; a pending one is widened.
-- after: last event before it; before: last event in it; lost: a number, or '' if it is not known.
local function note_gap(reason, after, before, lost)
  local pending, old_reason, old_after, old_lost = unpack(
    redis.call('HMGET', RECORD, 'gap_id', 'gap_reason', 'gap_after', 'gap_lost'))
  if pending then
    after = old_after
    if old_reason == 'stream_lost' then reason = old_reason end
    lost = (lost ~= '' and old_lost ~= '') and lost + tonumber(old_lost) or ''
  end
  redis.call('HSET', RECORD, 'gap_id', redis.call('HINCRBY', RECORD, 'gaps', 1),
    'gap_reason', reason, 'gap_after', after, 'gap_before', before, 'gap_lost', lost)
  redis.call('HDEL', RECORD, 'gap_holder', 'gap_held_until')
end
