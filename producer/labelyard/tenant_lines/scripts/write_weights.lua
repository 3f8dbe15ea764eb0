-- Replace the weights of all tenants, so that the next claim goes by them.
--
-- KEYS[1]  weights (hash)
-- KEYS[2..]  turns of each queue and priority (sorted sets)
-- ARGV[1..]  tenant and weight, in pairs
-- Returns 1 if the weights changed, else 0.
--
-- What a tenant was charged under its old weight is forgiven: a line that was charged at 0.01
-- would otherwise wait for 100 times its images although it has weight 1 by now.
local old, new, size = redis.call('HGETALL', KEYS[1]), {}, 0
for i = 1, #ARGV, 2 do new[ARGV[i]], size = ARGV[i + 1], size + 1 end
local is_same = #old == 2 * size
for i = 1, #old, 2 do is_same = is_same and new[old[i]] == old[i + 1] end
if is_same then return 0 end
redis.call('DEL', KEYS[1])  -- frees memory first: a script that has begun to write may finish
for tenant, weight in pairs(new) do redis.call('HSET', KEYS[1], tenant, weight) end
for i = 2, #KEYS do
  local lines = redis.call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
  local clock = lines[2]  -- of the empty name, which is the first
  for j = 3, #lines, 2 do redis.call('ZADD', KEYS[i], clock, lines[j]) end
end
return 1
