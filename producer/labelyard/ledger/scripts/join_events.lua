-- Make a group of consumers, or find the one that exists.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
-- ARGV[4]  start: where a new group begins: 'new' or 'oldest'; 'existing' makes none; 'resume' is
--          for a consumer that has read with the group before
-- ARGV[5]  after: last event that the caller knows of; '' = none
-- ARGV[6]  filter: JSON of the group's filter
-- ARGV[7]  max_groups
--
-- Returns
--   {'joined', position}
--   {'missing'}           there is no such group; with 'resume' it was deleted
--   {'conflict', filter}  the group has another filter
--   {'full'}              there are as many groups as are allowed
--   {'off'}               no events are written
--
-- With 'after', a ledger that lost its data since then is recognised: the new group begins with
-- a gap, and with the oldest event.
--
-- @include _event_groups.lua
local start, after, filter, max_groups = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])

if redis.call('HGET', NAMESPACE .. ':event_state', 'max_entries') == '0' then return {'off'} end
local last, created = last_event(NAMESPACE, TTL, now)
local _, last_number = event_position(last)

local function is_of_lost_stream(id)
  local ms, number = event_position(id)
  return ms < created or number > last_number
end

local function find_position()
  local groups = redis.pcall('XINFO', 'GROUPS', STREAM)
  if groups.err then return nil end
  for _, fields in ipairs(groups) do
    local one = {}
    for n = 1, #fields, 2 do one[fields[n]] = fields[n + 1] end
    if one.name == GROUP then return one['last-delivered-id'] end
  end
end

local position, known_filter = unpack(redis.call('HMGET', RECORD, 'position', 'filter'))
if known_filter and known_filter ~= filter then return {'conflict', known_filter} end
local in_stream = find_position()
if position and in_stream then
  keep_group()
  return {'joined', position}
end
local known = position or after
local has_lost = known ~= '' and is_of_lost_stream(known)
if not position then
  local is_wanted = start == 'new' or start == 'oldest' or has_lost
  if start == 'existing' and after ~= '' then is_wanted = true end
  if not is_wanted then return {'missing'} end
  if redis.call('ZCARD', GROUPS) >= max_groups then return {'full'} end
end
if in_stream then
  position = in_stream
elseif has_lost then
  position = before_first()
elseif known ~= '' then
  position = known
elseif start == 'oldest' then
  position = before_first()
else
  position = last
end
if not in_stream then
  redis.call('XGROUP', 'CREATE', STREAM, GROUP, position, 'MKSTREAM')
  redis.call('EXPIRE', STREAM, TTL)
end
redis.call('HSET', RECORD, 'position', position, 'filter', filter)
redis.call('HSETNX', RECORD, 'created_at', string.format('%.6f', now))
if has_lost then note_gap('stream_lost', known, position, '') end
keep_group()
return {'joined', position}
