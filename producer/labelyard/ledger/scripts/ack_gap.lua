-- Acknowledge the gap of a group, unless it was widened since it was read.
--
-- KEYS, ARGV[1..3]  see _event_groups.lua
-- ARGV[4]  gap_id
--
-- Returns 1, or 0 if another gap is pending, or none.
--
-- @include _event_groups.lua
if redis.call('HGET', RECORD, 'gap_id') ~= ARGV[4] then return 0 end
redis.call('HDEL', RECORD, 'gap_id', 'gap_reason', 'gap_after', 'gap_before', 'gap_lost',
  'gap_holder', 'gap_held_until')
return 1
