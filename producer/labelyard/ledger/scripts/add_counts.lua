-- Add to counts of answers.
--
-- KEYS[1]  counts (hash)
-- ARGV[1]  ttl_s: seconds from now for which they are kept
-- ARGV[2]  flush: name and number of the call, 'worker:number', so that a repeated one adds nothing
-- ARGV[3..]  name, increment, name, increment, …
--
-- Returns {'added'} or {'known'}
--
-- Beyond MAX_COUNTS fields a new name such as 'answer:a cat' is counted as 'answer:'.
--
-- @constants MAX_COUNTS
local ttl_s, flush = ARGV[1], ARGV[2]
local worker, number = string.match(flush, '^(.*):(%d+)$')

local last = tonumber(redis.call('HGET', KEYS[1], 'flush:' .. worker))
if last and last >= tonumber(number) then return {'known'} end
local room = MAX_COUNTS - redis.call('HLEN', KEYS[1])
for at = 3, #ARGV, 2 do
  local name, increment = ARGV[at], ARGV[at + 1]
  local kind = string.match(name, '^(%a+:)')
  if kind and redis.call('HEXISTS', KEYS[1], name) == 0 then
    if room <= 0 then name = kind end
    room = room - 1
  end
  redis.call('HINCRBY', KEYS[1], name, increment)
end
if last or room > 0 then redis.call('HSET', KEYS[1], 'flush:' .. worker, number) end
redis.call('EXPIRE', KEYS[1], ttl_s)
return {'added'}
