-- Count a shard as failed whose job ended without a result.
--
-- KEYS, ARGV[1..5]  see _prelude.lua and _run.lua
-- ARGV[6]  name: name of the shard
-- ARGV[7]  counts: numbers by the field of the run that they are added to, as JSON
-- ARGV[8]  failed: the shard's range and failure as JSON
--
-- Returns 1 if it was counted just now, else 0.
--
-- @include _prelude.lua
-- @include _run.lua
local name, counts, failed = ARGV[6], ARGV[7], ARGV[8]

if not count_shard(name, counts) then return 0 end
redis.call('HSET', FAILED, name, failed)
keep_run()
return 1
