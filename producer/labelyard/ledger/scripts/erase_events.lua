-- Erase the events of a record that is gone, in one page of the stream.
--
-- KEYS[1]  events of the namespace (stream)
-- ARGV[1]  namespace
-- ARGV[2]  ttl_s
-- ARGV[3]  id of the record
-- ARGV[4]  after: event behind which the page begins
-- ARGV[5]  count: events of the page
--
-- Returns {number of events that were erased, after of the next page; '' = there is none}.
--
-- @include _events.lua
local namespace, ttl, id = ARGV[1], ARGV[2], ARGV[3]
local erased, last = 0, ''

local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[4], '+', 'COUNT', ARGV[5])
for _, entry in ipairs(entries) do
  last = entry[1]
  for n = 1, #entry[2], 2 do
    if entry[2][n] == 'id' and entry[2][n + 1] == id then
      erase_event(namespace, ttl, last)
      erased = erased + 1
    end
  end
end
if #entries < tonumber(ARGV[5]) then last = '' end
return {erased, last}
