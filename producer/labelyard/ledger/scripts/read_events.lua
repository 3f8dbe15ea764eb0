-- Give events to a consumer of a group, and the group's gap.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
-- ARGV[4]  consumer
-- ARGV[5]  count: most events
-- ARGV[6]  claim_after_ms: an event that is pending for so long is given to another consumer
-- ARGV[7]  is_claiming: 1 = look for such events
-- ARGV[8]  own_after: pending events of this consumer behind that id come first; '' = none
--
-- Returns
--   {'read', position, own_after of the next call, gap, events, how many the filter left out}
--       gap: {} or {id, reason, after, before, lost}; each event: {id, deliveries, fields}
--   {'missing'}  there is no such group
--
-- Trimmed events are recognised by the holes in the numbers, and in the group's pending events.
-- Erased events are none of them. A gap is given to one consumer, and after claim_after_ms without
-- an acknowledgement to another one.
--
-- @include _event_groups.lua
local consumer, count, claim_after_ms = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local is_claiming, own_after = ARGV[7] == '1', ARGV[8]
local events, gone, acked, left_out = {}, {}, {}, 0

local position, filter = unpack(redis.call('HMGET', RECORD, 'position', 'filter'))
if not position then return {'missing'} end
filter = cjson.decode(filter)

local function is_wanted(fields)
  local event = {}
  for n = 1, #fields, 2 do event[fields[n]] = fields[n + 1] end
  for name, values in pairs(filter) do
    local is_among = false
    for _, value in ipairs(values) do is_among = is_among or event[name] == value end
    if not is_among then return false end
  end
  return true
end

local function add_own(next_own)
  local pending = redis.call('XPENDING', STREAM, GROUP, '(' .. own_after, '+', count, consumer)
  for _, one in ipairs(pending) do
    local entry = redis.call('XCLAIM', STREAM, GROUP, consumer, 0, one[1])[1]
    if entry then
      events[#events + 1] = {one[1], one[4] + 1, entry[2]}
    else
      gone[#gone + 1] = one[1]
      acked[#acked + 1] = one[1]
    end
    next_own = one[1]
  end
  return #pending == count and next_own or ''
end

local function add_claimed()
  local cursor = redis.call('HGET', RECORD, 'claim_cursor') or '0-0'
  local answer = redis.call('XAUTOCLAIM', STREAM, GROUP, consumer, claim_after_ms, cursor,
    'COUNT', count)
  redis.call('HSET', RECORD, 'claim_cursor', answer[1])
  for _, entry in ipairs(answer[2]) do
    local pending = redis.call('XPENDING', STREAM, GROUP, entry[1], entry[1], 1)[1]
    events[#events + 1] = {entry[1], pending and pending[4] or 1, entry[2]}
  end
  for _, id in ipairs(answer[3] or {}) do gone[#gone + 1] = id end
end

-- Names of consumers that died would pile up.
local function drop_idle_consumers()
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, GROUP)) do
    local one = {}
    for n = 1, #fields, 2 do one[fields[n]] = fields[n + 1] end
    if one.name ~= consumer and one.pending == 0 and one.idle > math.max(3600000, claim_after_ms) then
      redis.call('XGROUP', 'DELCONSUMER', STREAM, GROUP, one.name)
    end
  end
end

local function note_gone()
  local lost, first, last = 0, nil, nil
  for _, id in ipairs(gone) do
    local ms, number = event_position(id)
    if not redis.call('ZSCORE', ERASED, string.format('%.0f', number)) then
      lost = lost + 1
      if not first or number < first then first = number end
      if not last or number > last.number then last = {id = id, ms = ms, number = number} end
    end
  end
  if lost > 0 then note_gap('trimmed', event_id_of(last.ms, first - 1), last.id, lost) end
end

local function skip_trimmed()
  local first_position = before_first()
  local _, at = event_position(position)
  local _, before = event_position(first_position)
  if before <= at then return end
  local lost = count_lost(at + 1, before)
  if lost > 0 then note_gap('trimmed', position, first_position, lost) end
  redis.call('XGROUP', 'SETID', STREAM, GROUP, first_position)
  position = first_position
end

local function add_new()
  for _ = 1, 10 do
    local room = count - #events
    if room <= 0 then return end
    local answer = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', room,
      'STREAMS', STREAM, '>')
    if not answer then return end
    for _, entry in ipairs(answer[1][2]) do
      position = entry[1]
      if is_wanted(entry[2]) then
        events[#events + 1] = {entry[1], 1, entry[2]}
      else
        acked[#acked + 1] = entry[1]
        left_out = left_out + 1
      end
    end
  end
end

local function take_gap()
  local id, reason, after, before, lost, holder, held_until = unpack(redis.call('HMGET', RECORD,
    'gap_id', 'gap_reason', 'gap_after', 'gap_before', 'gap_lost', 'gap_holder', 'gap_held_until'))
  if not id then return {} end
  local is_held = holder and tonumber(held_until) > now_ms
  if is_held and (holder ~= consumer or own_after == '') then return {} end
  redis.call('HSET', RECORD, 'gap_holder', consumer,
    'gap_held_until', string.format('%.0f', now_ms + claim_after_ms))
  return {id, reason, after, before, lost}
end

local made = redis.pcall('XGROUP', 'CREATECONSUMER', STREAM, GROUP, consumer)
if type(made) == 'table' and made.err then return {'missing'} end
local next_own = ''
if own_after ~= '' then next_own = add_own(own_after) end
if is_claiming then
  if #events < count then add_claimed() end
  drop_idle_consumers()
end
note_gone()
skip_trimmed()
if next_own == '' then add_new() end
if #acked > 0 then redis.call('XACK', STREAM, GROUP, unpack(acked)) end
local gap = take_gap()
redis.call('HSET', RECORD, 'position', position)
keep_group()
return {'read', position, next_own, gap, events, left_out}
