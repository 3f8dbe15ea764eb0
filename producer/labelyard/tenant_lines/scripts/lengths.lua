-- Count the messages of lists together with their lines.
--
-- KEYS[1..]  lists
-- Returns the number of messages of each.
--
-- @include _lines.lua
local lengths = {}
for i, list in ipairs(KEYS) do
  lengths[i] = redis.call('LLEN', list)
  for _, line in ipairs(redis.call('ZRANGE', list .. TURNS, 1, -1)) do
    lengths[i] = lengths[i] + redis.call('LLEN', list .. LINE .. line)
  end
end
return lengths
