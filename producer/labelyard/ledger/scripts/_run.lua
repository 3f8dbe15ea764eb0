-- Record of a run, for the scripts that change it: included below _prelude.lua.
--
-- KEYS[11]  record of the run (hash)
-- KEYS[12]  index of runs (sorted set)
-- KEYS[13]  open runs (sorted set)
-- KEYS[14]  shards that are not done: their ranges of lines (hash)
-- KEYS[15]  shards that have no job yet (sorted set)
-- KEYS[16]  shards that have a job (sorted set)
-- KEYS[17]  shards that are done (set)
-- KEYS[18]  how far the running shards have come (hash)
-- KEYS[19]  shards that failed as a whole (hash)
-- ARGV[5]   run_id
local RUN, RUNS, OPEN_RUNS = KEYS[11], KEYS[12], KEYS[13]
local SHARDS, WAITING, OPENED = KEYS[14], KEYS[15], KEYS[16]
local DONE, TRAILS, FAILED = KEYS[17], KEYS[18], KEYS[19]
local RUN_ID = ARGV[5]

local function keep_run()
  for i = 11, 19 do redis.call('EXPIRE', KEYS[i], OPEN_TTL) end
end

local function run_number(field) return tonumber(redis.call('HGET', RUN, field)) or 0 end

-- Count a shard in its run, once whatever is repeated; returns false if it was counted before.
local function count_shard(name, counts)
  if redis.call('EXISTS', RUN) == 0 or redis.call('SADD', DONE, name) == 0 then return false end
  redis.call('ZREM', WAITING, name)
  redis.call('ZREM', OPENED, name)
  redis.call('HDEL', SHARDS, name)
  redis.call('HDEL', TRAILS, name)
  for field, number in pairs(cjson.decode(counts)) do
    if number ~= 0 then redis.call('HINCRBY', RUN, field, number) end
  end
  redis.call('HINCRBY', RUN, 'shards_done', 1)
  redis.call('HSET', RUN, 'changed_at', stamp)
  keep_run()
  return true
end
