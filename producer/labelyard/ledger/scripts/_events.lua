-- Event stream of the namespace: one entry for each job, run or shard that became final.
--
-- A script that makes a record final includes this file (_prelude.lua does so already) and calls
--
--   local event_id = add_event(namespace, ttl_s, now, {
--     kind = 'run', id = run_id, state = 'succeeded', tenant = tenant, ...})
--
-- in the same script that changes the record: both happen, or neither. Arguments:
--   namespace  as in the names of all keys
--   ttl_s      life of the stream after its last entry: open_ttl_s
--   now        Redis' clock in seconds
--   event      kind: 'job', 'run' or 'shard'; id; state; tenant ('' = default). Optional: tag;
--              parent (id of a shard's run); uri (where the output is); images (a number);
--              result (JSON, kept in the entry if it is short enough)
-- It returns the id of the entry for erase_event, or '' if events are switched off. A call that is
-- repeated because its reply was lost must not come here again: look at the record's state first.
--
-- An entry's id is MILLISECONDS-NUMBER: when it was written, and how many there were until it.
-- Numbers have no holes, so that a group of consumers finds out how many entries it has missed.
--
-- @constants EVENTS_MAX_ENTRIES, EVENT_RESULT_MAX_BYTES, ERASED_EVENTS_MAX
local function event_position(id)
  local ms, number = string.match(id or '', '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local function event_id_of(ms, number) return string.format('%.0f-%.0f', ms, number) end

-- Return the id of the last entry that was ever written, or the position before the first one.
local function last_event(namespace, ttl, now)
  local key = namespace .. ':event_state'
  local last, created = unpack(redis.call('HMGET', key, 'last', 'created_ms'))
  if created then return last or event_id_of(tonumber(created), 0), tonumber(created) end
  created = math.floor(now * 1000)
  redis.call('HSET', key, 'created_ms', string.format('%.0f', created))
  redis.call('EXPIRE', key, ttl)
  return event_id_of(created, 0), created
end

local function add_event(namespace, ttl, now, event)
  local key, stream = namespace .. ':event_state', namespace .. ':events'
  local last, most, most_bytes = unpack(
    redis.call('HMGET', key, 'last', 'max_entries', 'result_max_bytes'))
  most = tonumber(most) or EVENTS_MAX_ENTRIES
  if most == 0 then return '' end
  local entry = {'kind', event.kind, 'id', event.id, 'state', event.state,
    'tenant', (event.tenant and event.tenant ~= '') and event.tenant or 'default'}
  for _, name in ipairs({'tag', 'parent', 'uri', 'images'}) do
    local value = event[name]
    if value and value ~= '' then
      entry[#entry + 1] = name
      entry[#entry + 1] = value
    end
  end
  local result = event.result or ''
  if #result > (tonumber(most_bytes) or EVENT_RESULT_MAX_BYTES) then
    entry[#entry + 1] = 'result_bytes'
    entry[#entry + 1] = #result
  elseif result ~= '' then
    entry[#entry + 1] = 'result'
    entry[#entry + 1] = result
  end
  local ms, number = event_position(last or (last_event(namespace, ttl, now)))
  local id = event_id_of(math.max(ms, math.floor(now * 1000)), number + 1)
  local added = redis.pcall('XADD', stream, 'MAXLEN', '~', most, id, unpack(entry))
  if type(added) == 'table' and added.err then  -- the stream is older than what is known of it
    local info = redis.call('XINFO', 'STREAM', stream)
    for n = 1, #info, 2 do
      if info[n] == 'last-generated-id' then ms, number = event_position(info[n + 1]) end
    end
    id = event_id_of(math.max(ms, math.floor(now * 1000)), number + 1)
    redis.call('XADD', stream, 'MAXLEN', '~', most, id, unpack(entry))
  end
  redis.call('HSET', key, 'last', id)
  if number == 0 or math.floor(ms / 60000) ~= math.floor(now / 60) then  -- once a minute is enough
    redis.call('EXPIRE', key, ttl)
    redis.call('EXPIRE', stream, ttl)
  end
  return id
end

-- Delete an entry with what it holds; its number is kept, so that nobody takes it for missed.
local function erase_event(namespace, ttl, id)
  local _, number = event_position(id)
  if not number or redis.call('XDEL', namespace .. ':events', id) == 0 then return end
  local erased = namespace .. ':erased_events'
  redis.call('ZADD', erased, number, string.format('%.0f', number))
  redis.call('ZREMRANGEBYRANK', erased, 0, -ERASED_EVENTS_MAX - 1)
  redis.call('EXPIRE', erased, ttl)
end
