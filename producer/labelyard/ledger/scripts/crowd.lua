-- Note that other jobs start beside a suspect that had its worker to itself until now.
--
-- KEYS, ARGV[1..4]  see _prelude.lua
-- ARGV[5]  worker: the worker that runs the suspect
--
-- Returns {'crowded'}, or {'over'} if that worker does not run it any more.
--
-- @include _prelude.lua
local worker = ARGV[5]

if redis.call('HGET', JOB, 'runner') ~= worker then return {'over'} end
redis.call('HSET', JOB, 'alone', 'b')
return {'crowded'}
