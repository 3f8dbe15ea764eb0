-- Renew the hold of a consumer on events that it has received and not handled yet.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
-- ARGV[4]  consumer
-- ARGV[5]  ids, with spaces between them
--
-- Returns the ids that the consumer still holds: the others were given to another consumer.
--
-- @include _event_groups.lua
local consumer, held = ARGV[4], {}

for id in string.gmatch(ARGV[5], '%S+') do
  local pending = redis.pcall('XPENDING', STREAM, GROUP, id, id, 1, consumer)
  if pending.err then return {} end
  if pending[1] then
    redis.call('XCLAIM', STREAM, GROUP, consumer, 0, id, 'JUSTID')
    held[#held + 1] = id
  end
end
return held
