-- Lines of the tenants of a list: their names, and the tenant that a message is charged to.
--
-- Start-time fair queueing: the line with the smallest virtual time is next, and is charged for each
-- message. A list L that is sorted has a line L:line:TENANT for each tenant, and the sorted set
-- L:turns of their names by virtual time. The empty name in it has the virtual time of the last
-- claim, the clock; it is the smallest, so it comes first. An empty line keeps its turn until the
-- clock gets there: else a tenant that queues one message at a time would never be charged.
-- A list that is not sorted has the counter L:known: its oldest messages, so many, are of one tenant.
local TURNS, LINE, KNOWN = ':turns', ':line:', ':known'
local MAX_LINES, SHARED_LINES = 2000, 64  -- tenants beyond MAX_LINES share lines named ~0 to ~63
local MAX_TENANT_CHARS, MAX_IMAGES = 64, 100000  -- a job has up to 64, a shard of a run thousands

-- Return the rest of a message behind a header's name, or nil. A name inside of the body does not
-- match: its quotes are escaped there.
local function find_header(raw, name)
  local _, at = string.find(raw, name, 1, true)
  return at and at + 1
end

local function tenant_of(raw)
  local at = find_header(raw, '"labelyard_tenant"')
  local tenant = at and string.match(raw, '^ ?: ?"(%w[%w._-]*)"', at)
  if tenant and #tenant <= MAX_TENANT_CHARS then return tenant end
  return 'default'
end

local function images_of(raw)
  local at = find_header(raw, '"labelyard_images"')
  local images = at and tonumber(string.match(raw, '^ ?: ?(%d%d?%d?%d?%d?%d?)[,} ]', at))
  return math.max(1, math.min(images or 1, MAX_IMAGES))
end

-- Return the name of the line that tenants share with *tenant* if there are too many.
local function shared_line(tenant)
  local sum = 0
  for i = 1, #tenant do sum = (sum * 31 + string.byte(tenant, i)) % 65521 end
  return '~' .. sum % SHARED_LINES
end

local function is_shared(line) return string.byte(line) == 126 end

-- Return the name of the line that a tenant's messages go to.
local function line_of(turns, tenant)
  if redis.call('ZCARD', turns) <= MAX_LINES or redis.call('ZSCORE', turns, tenant) then
    return tenant
  end
  return shared_line(tenant)
end
