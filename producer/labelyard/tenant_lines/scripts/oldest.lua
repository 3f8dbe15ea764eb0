-- Find when the oldest message of each list was published, over the list and its lines.
--
-- KEYS[1..]  lists
-- Returns for each the smallest publishing time of the oldest messages of its lines; 0 if one of
-- them has none, and an empty text if there is no message. 2,000 lines take about 5 ms.
--
-- @include _lines.lua
local function published_at(raw)
  local at = find_header(raw, '"labelyard_published_at"')
  local number = at and tonumber(string.match(raw, '^ ?: ?([%d.eE+-]+)', at))
  return number and number < math.huge and number or 0
end

local function oldest_of(list, first)
  local raw = redis.call('LINDEX', list, -1)
  return raw and math.min(first or math.huge, published_at(raw)) or first
end

local oldest = {}
for i, list in ipairs(KEYS) do
  local first = oldest_of(list, nil)
  for _, line in ipairs(redis.call('ZRANGE', list .. TURNS, 1, -1)) do
    first = oldest_of(list .. LINE .. line, first)
  end
  oldest[i] = first and string.format('%.6f', first) or ''
end
return oldest
