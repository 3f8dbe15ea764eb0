-- Find the messages of a job. One script, so that a message that is claimed meanwhile is not missed.
--
-- KEYS[1]  unacknowledged messages (hash)
-- KEYS[2]  their index by time (sorted set)
-- KEYS[3..]  lists, the likeliest first
-- ARGV[1]  the job's id between quotes
-- ARGV[2]  most messages to search
-- ARGV[3]  most bytes to search
-- ARGV[4]  the job's tenant, whose lines are searched first
-- Returns {hits, searched, place at which the bounds ended the search or -1, the last message that
--   was searched there}.
--   A hit is {place, number, now, line, lines before it, line whose turn it is}. Place 0 is an
--   unacknowledged message, with the time at which it was claimed or last renewed; place n is list
--   n, with the number of messages before it in the list, or in its line if that is not empty.
--
-- @include _lines.lua
local CHUNK = 10
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local id, left, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local hits, searched, cut, last = {}, 0, -1, ''

local function names_job(message)
  searched, left, bytes = searched + 1, left - 1, bytes - #message
  return string.find(message, id, 1, true)
end

-- Return how many lines with messages have their turn before *line*, and the first of them all.
local function turn_of(list, line)
  local before, first = 0, ''
  for _, name in ipairs(redis.call('ZRANGE', list .. TURNS, 1, -1)) do
    if redis.call('EXISTS', list .. LINE .. name) == 1 then
      if first == '' then first = name end
      if name == line then break end
      before = before + 1
    end
  end
  return before, first
end

local function search(place, list, line, is_likely)
  local key = line == '' and list or list .. LINE .. line
  local length, ahead = redis.call('LLEN', key), 0
  while ahead < length do
    if left <= 0 or bytes <= 0 then
      if cut == -1 then
        cut = place
        if ahead > 0 and is_likely then last = redis.call('LINDEX', key, -ahead) end
      end
      return
    end
    local chunk = redis.call('LRANGE', key, -ahead - CHUNK, -ahead - 1)
    for i = #chunk, 1, -1 do
      if names_job(chunk[i]) then
        local before, first = 0, ''
        if line ~= '' then before, first = turn_of(list, line) end
        hits[#hits + 1] = {place, tostring(ahead), now, line, before, first}
      end
      ahead = ahead + 1
    end
  end
end

for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], 0, left)) do
  if left <= 0 or bytes <= 0 then cut = 0 break end
  local message = redis.call('HGET', KEYS[1], tag)
  if message and names_job(message) then
    hits[#hits + 1] = {0, redis.call('ZSCORE', KEYS[2], tag), now, '', 0, ''}
  end
end
local own = {[ARGV[4]] = true, default = true, [shared_line(ARGV[4])] = true}
for i = 3, #KEYS do
  for line in pairs(own) do
    if line ~= '' then search(i - 2, KEYS[i], line, true) end
  end
  search(i - 2, KEYS[i], '', true)
end
for i = 3, #KEYS do
  for _, line in ipairs(redis.call('ZRANGE', KEYS[i] .. TURNS, 1, -1)) do
    if not own[line] then search(i - 2, KEYS[i], line, false) end
  end
end
return {hits, searched, cut, last}
