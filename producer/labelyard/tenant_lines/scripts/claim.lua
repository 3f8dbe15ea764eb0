-- Pop the next message and record it as unacknowledged, in one step; tenants take turns.
--
-- KEYS[1]  unacknowledged messages (hash)
-- KEYS[2]  their index by time (sorted set)
-- KEYS[3]  weights of the tenants (hash)
-- KEYS[4]  lists whose messages are sorted into lines (set)
-- KEYS[5..]  queues to search, in order: the list of each
-- ARGV[1]  delivery tag
-- ARGV[2]  1 to search all priorities of a queue before the next queue, 0 to search by priority
-- ARGV[3]  for each queue 1 to leave its shards of runs, messages of more images than a job has, to
--   other workers, else 0: 0010
-- ARGV[4..]  name of each queue as JSON, empty if it needs no acknowledgement; then the suffix of
--   the list of each priority
-- Returns {place of the queue, message, 1 if tenants take turns in its list}, or nil if all lists are
-- empty.
--
-- An idle caller sends CLIENT CACHING YES first: EXISTS then arms CLIENT TRACKING, and the next
-- write to one of the empty lists is pushed to it.
-- The script does not parse the message: the tag is the claimant's, and the record names the queue
-- that the message came from and returns to. The message is stamped with the server's own time:
-- workers' clocks may disagree by more than the visibility timeout.
-- RPOP comes before any other write: at maxmemory Redis refuses a script's first write that takes
-- memory, but lets a script that has begun to write finish, so neither a line nor the record is
-- ever refused.
--
local UNACKED, INDEX, WEIGHTS, SORTED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local FIRST_QUEUE, FIRST_NAME, FIRST_SUFFIX = 5, 4, #KEYS
local MAX_JOB_IMAGES = 64
local LOOK_EVERY = 16  -- claims

-- Return the functions for tenants. They are made only when they are needed, which for a list that is
-- not sorted is each LOOK_EVERY claims: it would be a part of the time of every claim.
local function functions_for_tenants()
-- @include _lines.lua
local LOOK_BEHIND = 16  -- messages, and lines, among which one that is not a shard is searched: about 30 us
local MOST_AT_ONCE = 256  -- messages that one claim looks at or moves: about 1 ms
local CHUNK_BYTES = 65536  -- read at once, about: messages may be large
local MIN_WEIGHT, MAX_WEIGHT = 0.01, 1000

-- Return how many messages to read next, the longest of the last ones having *longest* bytes.
local function chunk_of(left, longest)
  return math.min(left, math.max(1, math.floor(CHUNK_BYTES / longest)))
end

-- Move *raw*, if given, and the oldest messages of a list to the lines of their tenants.
local function sort_messages(list, turns, clock, raw)
  local of_tenant, left, longest = {}, MOST_AT_ONCE, raw and #raw or 2048
  local messages = raw and {raw} or {}
  repeat
    for _, message in ipairs(messages) do
      local tenant = tenant_of(message)
      local sorted = of_tenant[tenant]
      if sorted then sorted[#sorted + 1] = message else of_tenant[tenant] = {message} end
      longest = math.max(longest, #message)
    end
    left = left - #messages
    messages = left > 0 and redis.call('RPOP', list, chunk_of(left, longest))
  until not messages
  for tenant, sorted in pairs(of_tenant) do
    local line = line_of(turns, tenant)
    redis.call('LPUSH', list .. LINE .. line, unpack(sorted))
    redis.call('ZADD', turns, 'NX', clock, line)
  end
end

-- Charge a line for a message: its images divided by its tenant's weight. The clock is the time of
-- the line, unless lines before it were passed over.
local function charge(turns, line, at, raw, clock)
  local tenant = is_shared(line) and tenant_of(raw) or line
  local weights = redis.call('HMGET', WEIGHTS, tenant, '*')
  local weight = tonumber(weights[1] or weights[2]) or 1
  local cost = images_of(raw) / math.min(MAX_WEIGHT, math.max(MIN_WEIGHT, weight))
  redis.call('ZADD', turns, clock or at, '', at + cost, line)
end

-- Pop the oldest message of a list or line that is not a shard. Returns the message, whether there
-- was none at all, and whether the oldest message is of another tenant.
local function pop_small(key)
  local messages = redis.call('LRANGE', key, -LOOK_BEHIND, -1)
  for i = #messages, 1, -1 do
    if images_of(messages[i]) <= MAX_JOB_IMAGES then
      redis.call('LREM', key, -1, messages[i])
      return messages[i], false, tenant_of(messages[#messages]) ~= tenant_of(messages[i])
    end
  end
  return false, #messages == 0, false
end

-- Pop a message that is not a shard from the first line that has one.
local function pop_small_sorted(turns, list)
  local lines = redis.call('ZRANGE', turns, 0, LOOK_BEHIND, 'WITHSCORES')
  local clock
  for i = 3, #lines, 2 do
    local line, at = lines[i], lines[i + 1]
    local raw, is_empty = pop_small(list .. LINE .. line)
    if is_empty and not clock then
      redis.call('ZREM', turns, line)
    else
      clock = clock or at
      if raw then
        if #lines > 4 then charge(turns, line, at, raw, clock) end  -- a lone line is not charged
        return raw
      end
    end
  end
  return false
end

-- Pop from a list that is sorted: from the line with the smallest virtual time.
local function pop_sorted(list, is_left)
  local turns, raw = list .. TURNS, redis.call('RPOP', list)
  local first = redis.call('ZRANGE', turns, 0, 2, 'WITHSCORES')
  if raw then
    sort_messages(list, turns, first[2] or 0, raw)
    first = redis.call('ZRANGE', turns, 0, 2, 'WITHSCORES')
  end
  if is_left and first[3] then return pop_small_sorted(turns, list) end
  while first[3] do
    local line = first[3]
    raw = redis.call('RPOP', list .. LINE .. line)
    if raw then
      if first[5] then charge(turns, line, first[4], raw) end  -- a lone line is not charged
      return raw
    end
    redis.call('ZREM', turns, line)  -- empty; kept until now for what it was charged
    first = redis.call('ZRANGE', turns, 0, 2, 'WITHSCORES')
  end
  redis.call('DEL', turns)
  redis.call('SREM', SORTED, list)
  return false
end

-- Look at messages behind the *known* ones. Sort the list if another tenant than that of *raw*,
-- which was popped just now, has one; else note how many are known.
local function look(list, known, raw)
  local length = redis.call('LLEN', list)
  if length == 0 then return redis.call('DEL', list .. KNOWN) end
  local tenant, longest = tenant_of(raw), #raw
  known = math.min(known, length)
  local left = math.min(MOST_AT_ONCE, length - known)
  while left > 0 do
    local count = chunk_of(left, longest)
    local messages = redis.call('LRANGE', list, -known - count, -known - 1)
    for i = #messages, 1, -1 do
      if tenant_of(messages[i]) ~= tenant then
        local turns = list .. TURNS
        redis.call('DEL', list .. KNOWN)
        redis.call('SADD', SORTED, list)
        redis.call('ZADD', turns, 0, '')
        sort_messages(list, turns, 0, false)
        return charge(turns, line_of(turns, tenant), 0, raw)
      end
      longest = math.max(longest, #messages[i])
    end
    known, left = known + count, left - count
  end
  if known < length then known = known - (known - 1) % LOOK_EVERY end  -- look again at once
  redis.call('SET', list .. KNOWN, known)
end

return pop_sorted, look, pop_small
end

local is_sorted = {}
local function read_sorted()
  local lists = redis.call('SMEMBERS', SORTED)
  for _, list in ipairs(lists) do is_sorted[list] = true end
  return #lists > 0
end

-- Pop from a list that is not sorted: the oldest messages, as many as its counter says, are known
-- to be of one tenant, and nothing is moved until one of another tenant is found.
local function pop_unsorted(list, is_left)
  local raw
  if is_left then
    local _, look, pop_small = functions_for_tenants()
    local is_other
    raw, _, is_other = pop_small(list)
    if is_other then
      look(list, 0, raw)  -- it sorts the list
      return raw
    end
  else
    raw = redis.call('RPOP', list)
  end
  if not raw then return false end
  local known = redis.call('DECR', list .. ':known')  -- KNOWN of _lines.lua
  if known < 0 or known % LOOK_EVERY == 0 then
    local _, look = functions_for_tenants()
    look(list, math.max(0, known), raw)
  end
  return raw
end

-- Pop from the list of a queue and priority, and record the message.
local function claim(place, list)
  local raw
  local is_left = string.sub(ARGV[3], place - FIRST_QUEUE + 1, place - FIRST_QUEUE + 1) == '1'
  if is_sorted[list] then
    raw = functions_for_tenants()(list, is_left)
  else
    raw = pop_unsorted(list, is_left)
  end
  if not raw then return nil end
  local queue = ARGV[place - FIRST_QUEUE + FIRST_NAME]
  if queue ~= '' then
    redis.call('HSET', UNACKED, ARGV[1], '[' .. raw .. ',"",' .. queue .. ']')
    local clock = redis.call('TIME')
    redis.call('ZADD', INDEX, clock[1] .. '.' .. string.format('%06d', clock[2]), ARGV[1])
  end
  return {place - FIRST_QUEUE, raw, is_sorted[list] and 1 or 0}
end

local found
if ARGV[2] == '1' then
  for place = FIRST_QUEUE, #KEYS do
    local lists = {}
    for suffix = FIRST_SUFFIX, #ARGV do lists[#lists + 1] = KEYS[place] .. ARGV[suffix] end
    local count
    if place == FIRST_QUEUE then
      -- One command tells of most claims that no list is sorted, and that the first queue is empty.
      count = redis.call('EXISTS', SORTED, unpack(lists))
      if count > 0 and read_sorted() then count = count - 1 end
    else
      count = redis.call('EXISTS', unpack(lists))
    end
    for _, list in ipairs(lists) do
      if count > 0 or is_sorted[list] then
        found = claim(place, list)
        if found then return found end
      end
    end
  end
else
  read_sorted()
  for suffix = FIRST_SUFFIX, #ARGV do
    for place = FIRST_QUEUE, #KEYS do
      local list = KEYS[place] .. ARGV[suffix]
      found = claim(place, list)
      if found then return found end
      redis.call('EXISTS', list)
    end
  end
end
return false
