-- Delete all messages of lists, with their lines.
--
-- KEYS[1]  lists whose messages are sorted into lines (set)
-- KEYS[2..]  lists
-- Returns how many messages there were.
--
-- @include _lines.lua
local purged = 0
for i = 2, #KEYS do
  local list = KEYS[i]
  local keys = {list}
  for _, line in ipairs(redis.call('ZRANGE', list .. TURNS, 1, -1)) do
    keys[#keys + 1] = list .. LINE .. line
  end
  for _, key in ipairs(keys) do
    purged = purged + redis.call('LLEN', key)
    redis.call('DEL', key)
  end
  redis.call('DEL', list .. TURNS, list .. KNOWN)
  redis.call('SREM', KEYS[1], list)
end
return purged
