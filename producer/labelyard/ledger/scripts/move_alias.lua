-- Move an alias to a version of its label set, begin or end its canary, or remove it.
--
-- KEYS[1]  aliases (hash)
-- KEYS[2]  moves of the alias (stream)
-- KEYS[3]  references by the time of registration (sorted set)
-- ARGV[1]  action: 'move', 'canary', 'end_canary' or 'remove'
-- ARGV[2]  alias: name@…
-- ARGV[3]  reference: the version to name, or to try as a canary; '' = none
-- ARGV[4]  share: of the jobs that a canary scores, too; '' = no canary
-- ARGV[5]  expect: version that the alias must name now; '-' = it must not exist; '' = any
-- ARGV[6]  author; '' = nobody is named
-- ARGV[7]  note; '' = none
-- ARGV[8]  call: drawn for each call, so that a repeated call is recognised
--
-- Returns
--   {'moved', alias as JSON, version before}   '' = there was none, or there is none now
--   {'unregistered'}                           the version is not registered
--   {'missing'}                                there is no such alias
--   {'conflict', version now}                  it names another version than expected
--   {'full'}                                   there are too many aliases
--
-- @constants MAX_ALIASES, MAX_ALIAS_MOVES
local action, name, reference, share = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local expect, author, note, call = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local stored = redis.call('HGET', KEYS[1], name)
local alias = stored and cjson.decode(stored) or {reference = '', moves = 0}
if alias.call == call then return {'moved', stored, alias.before} end
local before = alias.reference
if reference ~= '' and not redis.call('ZSCORE', KEYS[3], reference) then
  return {'unregistered'}
end
if not stored and action ~= 'move' then return {'missing'} end
if expect == '-' and stored or expect ~= '' and expect ~= '-' and expect ~= before then
  return {'conflict', before}
end
if not stored and redis.call('HLEN', KEYS[1]) >= MAX_ALIASES then return {'full'} end

local time = redis.call('TIME')
local entry = {'action', action, 'reference', reference, 'before', before, 'author', author,
  'note', note}
if share ~= '' then entry[#entry + 1], entry[#entry + 2] = 'share', share end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', MAX_ALIAS_MOVES, '*', unpack(entry))
if action == 'remove' then
  redis.call('HDEL', KEYS[1], name)
  return {'moved', '', before}
end
if action == 'move' then alias.reference = reference end
alias.canary, alias.share = nil, nil
if action == 'canary' then alias.canary, alias.share = reference, tonumber(share) end
alias.moves = alias.moves + 1
alias.moved_at = tonumber(string.format('%d.%03d', time[1], math.floor(time[2] / 1000)))
alias.author, alias.note, alias.call, alias.before = author, note, call, before
stored = cjson.encode(alias)
redis.call('HSET', KEYS[1], name, stored)
return {'moved', stored, before}
