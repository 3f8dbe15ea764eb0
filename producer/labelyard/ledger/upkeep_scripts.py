"""The Lua scripts that look after records: dead letters and sent messages.

They share the keys and the prelude of ``ledger_scripts.py``.
"""

from labelyard.ledger.scripts import PRELUDE

# Make a dead letter a new job under its old id.
# ARGV 5: replayer, drawn for each call: a repeated call whose reply was lost has replayed too.
# Returns {'opened', 'pending', when it is due} or {'missing'}.
REPLAY = (
    PRELUDE
    + """
if not redis.call('HGET', JOB, 'message') then return {'missing'} end
if redis.call('HGET', JOB, 'replayer') == ARGV[5] then
  return {'opened', 'pending', redis.call('HGET', JOB, 'published_at')}
end
if redis.call('ZREM', DEAD, ID) == 0 then return {'missing'} end
local queue = redis.call('HGET', JOB, 'queue')
if queue == 'quarantine' then queue = 'bulk' end
redis.call('HSET', JOB, 'state', 'pending', 'queue', queue, 'attempts', 0, 'deaths', 0,
  'deaths_alone', 0, 'published_at', stamp, 'replayer', ARGV[5])
redis.call('HDEL', JOB, 'result', 'finished_at', 'runner', 'last_death', 'undelivered',
  'deliveries', 'deliverer', 'deaths_suspect', 'deaths_beside', 'alone')
redis.call('ZREM', OWED, ID)
redis.call('DEL', ENDED)
redis.call('ZADD', OPEN, now, ID)
keep(OPEN)
redis.call('INCRBY', OPEN_IMAGES, redis.call('HGET', JOB, 'images'))
keep(OPEN_IMAGES)
redis.call('ZADD', DUE, stamp, ID)
keep(DUE)
local expires_at = redis.call('HGET', JOB, 'expires_at')
if expires_at and expires_at ~= '' then
  redis.call('ZADD', EXPIRING, expires_at, ID)
  keep(EXPIRING)
end
keep(JOB)
return {'opened', 'pending', stamp}
"""
)

# Drop a dead letter; its failed result stays readable for its TTL.
# ARGV 5: purger, drawn for each call: a repeated call whose reply was lost has purged too.
# Returns {'purged'} or {'missing'}.
PURGE = (
    PRELUDE
    + """
local was_dead = redis.call('ZREM', DEAD, ID) == 1
local is_there = redis.call('EXISTS', JOB) == 1
if was_dead and is_there then
  redis.call('HSET', JOB, 'purger', ARGV[5])
  redis.call('EXPIRE', JOB, RESULT_TTL)
end
local is_ours = is_there and redis.call('HGET', JOB, 'purger') == ARGV[5]
return {(was_dead or is_ours) and 'purged' or 'missing'}
"""
)

# Note that a message for the job was sent just now.
# ARGV 5: due: the score under which the job was taken from the due ones, '' if it was not. A
#   retry that was set meanwhile has another score, and stays.
# Returns {'sent', state, now} or {'final', state or 'missing'}.
SENT = (
    PRELUDE
    + """
local state = redis.call('HGET', JOB, 'state')
local is_over = not state or FINAL[state]
local due = redis.call('ZSCORE', DUE, ID)
if due and (is_over or tonumber(due) == tonumber(ARGV[5])) then redis.call('ZREM', DUE, ID) end
if is_over then
  redis.call('ZREM', OPEN, ID)
  return {'final', state or 'missing'}
end
redis.call('HSET', JOB, 'published_at', stamp)
redis.call('ZADD', OPEN, now, ID)
keep(JOB)
return {'sent', state, stamp}
"""
)

# Note that other jobs begin beside a suspect that had its worker to itself until now.
# ARGV 5: worker. Returns {'crowded'} or {'over'}.
CROWD = (
    PRELUDE
    + """
if redis.call('HGET', JOB, 'runner') ~= ARGV[5] then return {'over'} end
redis.call('HSET', JOB, 'alone', 'b')
return {'crowded'}
"""
)
