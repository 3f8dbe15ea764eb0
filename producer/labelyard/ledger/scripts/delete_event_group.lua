-- Delete a group of consumers, with its position and its pending events.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
--
-- Returns 1, or 0 if there was none.
--
-- @include _event_groups.lua
local destroyed = redis.pcall('XGROUP', 'DESTROY', STREAM, GROUP)
local found = redis.call('DEL', RECORD) + redis.call('ZREM', GROUPS, GROUP)
return (found > 0 or destroyed == 1) and 1 or 0
