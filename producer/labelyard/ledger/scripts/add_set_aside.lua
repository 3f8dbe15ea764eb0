-- Keep a message that no worker could run; beyond the bounds the oldest are dropped and counted.
--
-- KEYS[1]  messages that were set aside (hash by id)
-- KEYS[2]  their index by time (sorted set)
-- KEYS[3]  their size (hash)
-- ARGV[1]  entry_id
-- ARGV[2]  entry: the message and its reason as JSON
-- ARGV[3]  ttl_s: life of all three keys in seconds
-- ARGV[4]  max_entries: most messages to keep
-- ARGV[5]  max_total_bytes: most bytes to keep
--
-- Returns nothing. An entry that is there already keeps its place: a message is delivered at
-- least once.
local ENTRIES, INDEX, FIGURES = KEYS[1], KEYS[2], KEYS[3]
local entry_id, entry, ttl_s = ARGV[1], ARGV[2], ARGV[3]
local max_entries, max_total_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
if redis.call('HSETNX', ENTRIES, entry_id, entry) == 1 then
  redis.call('ZADD', INDEX, now, entry_id)
  redis.call('HINCRBY', FIGURES, 'bytes', #entry)
end
local bytes = tonumber(redis.call('HGET', FIGURES, 'bytes') or '0')
while redis.call('ZCARD', INDEX) > max_entries
      or (bytes > max_total_bytes and redis.call('ZCARD', INDEX) > 1) do
  local oldest = redis.call('ZPOPMIN', INDEX)[1]
  local dropped = redis.call('HGET', ENTRIES, oldest)
  redis.call('HDEL', ENTRIES, oldest)
  if dropped then bytes = redis.call('HINCRBY', FIGURES, 'bytes', -#dropped) end
  redis.call('HINCRBY', FIGURES, 'dropped', 1)
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ttl_s) end
