-- Drop a message that was set aside.
--
-- KEYS[1]  messages that were set aside (hash by id)
-- KEYS[2]  their index by time (sorted set)
-- KEYS[3]  their size (hash)
-- ARGV[1]  entry_id
--
-- Returns the entry that was dropped, or nothing.
local entry_id = ARGV[1]

local entry = redis.call('HGET', KEYS[1], entry_id)
redis.call('ZREM', KEYS[2], entry_id)
if not entry then return false end
redis.call('HDEL', KEYS[1], entry_id)
redis.call('HINCRBY', KEYS[3], 'bytes', -#entry)
return entry
