-- Keep a claim on an event whose job has a record, or give up one whose job was refused.
--
-- KEYS[1]  mark: newest event of one object (hash)
-- ARGV[1]  job_id: job that the event was claimed for
-- ARGV[2]  outcome: 'kept', or 'released'
--
-- Returns 1 if the claim was still that job's, else 0.
local MARK, job_id, outcome = KEYS[1], ARGV[1], ARGV[2]

if redis.call('HGET', MARK, 'job') ~= job_id then return 0 end
redis.call('HSET', MARK, 'held_until', outcome == 'kept' and '' or '0')
return 1
