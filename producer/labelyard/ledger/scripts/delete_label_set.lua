-- Delete a version of a label set, unless an alias names it.
--
-- KEYS[1]  label set (string)
-- KEYS[2]  references by the time of registration (sorted set)
-- KEYS[3]  version (hash)
-- KEYS[4]  aliases (hash)
-- ARGV[1]  reference: name@sha256:…
-- ARGV[2]  digest: sha256:…
--
-- Returns
--   {'deleted'}
--   {'missing'}          it is not registered
--   {'in_use', alias}    an alias names it
--
-- Labels that another reference names, too, are kept.
local reference, digest = ARGV[1], ARGV[2]

if not redis.call('ZSCORE', KEYS[2], reference) then return {'missing'} end
local aliases = redis.call('HGETALL', KEYS[4])
for at = 1, #aliases, 2 do
  local alias = cjson.decode(aliases[at + 1])
  if alias.reference == reference or alias.canary == reference then
    return {'in_use', aliases[at]}
  end
end
redis.call('ZREM', KEYS[2], reference)
redis.call('DEL', KEYS[3])
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if string.sub(other, -#digest) == digest then return {'deleted'} end
end
redis.call('DEL', KEYS[1])
return {'deleted'}
