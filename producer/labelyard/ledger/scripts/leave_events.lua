-- End a consumer's part in its group.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
-- ARGV[4]  consumer
-- ARGV[5]  is_releasing: 1 = its pending events may be given to another consumer at once
--
-- Returns the number of its pending events.
--
-- @include _event_groups.lua
local consumer, is_releasing = ARGV[4], ARGV[5] == '1'

local pending = redis.pcall('XPENDING', STREAM, GROUP, '-', '+', 10000, consumer)
if pending.err then return 0 end
if redis.call('HGET', RECORD, 'gap_holder') == consumer and is_releasing then
  redis.call('HDEL', RECORD, 'gap_holder', 'gap_held_until')
end
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', STREAM, GROUP, consumer)
elseif is_releasing then
  for _, one in ipairs(pending) do
    redis.call('XCLAIM', STREAM, GROUP, consumer, 0, one[1], 'IDLE', 1000000000, 'JUSTID')
  end
end
return #pending
