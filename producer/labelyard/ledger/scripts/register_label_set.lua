-- Keep a label set under a name, as its newest version.
--
-- KEYS[1]  label set (string)
-- KEYS[2]  references by the time of registration (sorted set)
-- KEYS[3]  version (hash)
-- ARGV[1]  stored: the label set as JSON
-- ARGV[2]  reference: name@sha256:…
-- ARGV[3]  parent: reference of the version that it was made from; '' = none
-- ARGV[4]  author; '' = nobody is named
-- ARGV[5]  note; '' = none
--
-- Returns {created_at}
--
-- A set that is registered again becomes the newest version; it keeps its first parent and time,
-- and takes a new author and note if they are given.
local stored, reference, parent, author, note = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local time = redis.call('TIME')
local stamp = string.format('%d.%06d', time[1], time[2])
redis.call('SET', KEYS[1], stored)
redis.call('ZADD', KEYS[2], stamp, reference)
redis.call('HSETNX', KEYS[3], 'created_at', stamp)
if parent ~= '' and parent ~= reference then redis.call('HSETNX', KEYS[3], 'parent', parent) end
if author ~= '' then redis.call('HSET', KEYS[3], 'author', author) end
if note ~= '' then redis.call('HSET', KEYS[3], 'note', note) end
return {redis.call('HGET', KEYS[3], 'created_at')}
