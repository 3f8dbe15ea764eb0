-- Move messages from the lines of a list back to the list, for workers that read no lines.
--
-- KEYS[1]  lists whose messages are sorted into lines (set)
-- KEYS[2]  list
-- ARGV[1]  most messages to move
-- Returns how many were moved; fewer than asked for if no line is left.
--
-- They become the next ones to be claimed, in each tenant's order; tenants come one after another.
--
-- @include _lines.lua
local list, left = KEYS[2], tonumber(ARGV[1])
local turns, most = list .. TURNS, tonumber(ARGV[1])
while left > 0 do
  local line = redis.call('ZRANGE', turns, -1, -1)[1]
  if not line or line == '' then
    redis.call('DEL', turns)
    redis.call('SREM', KEYS[1], list)
    break
  end
  local messages = redis.call('LPOP', list .. LINE .. line, left)  -- the newest first
  if messages then
    redis.call('RPUSH', list, unpack(messages))
    left = left - #messages
  else
    redis.call('ZREM', turns, line)
  end
end
return most - left
