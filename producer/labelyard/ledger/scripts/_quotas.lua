-- Quotas of tenants, for the script that opens a job: included below the prelude.
--
-- Open images are those of the backlog. A rate is a token bucket that holds BURST_S seconds of it,
-- and is full at first. A job that is larger than the bucket passes when the bucket is full, and
-- leaves a debt: on average no tenant exceeds its rate, and no job is too large for one.
--
-- @constants BURST_S, MAX_ADOPTED_DEBT_S, OPEN_IMAGES_PAUSE_S
-- @constants INTERACTIVE_QUEUE, BULK_QUEUE, QUARANTINE_QUEUE, CONTROL_QUEUE

-- Return the tenant's policy, the one of all tenants without their own, or nil.
local function policy_of(tenant)
  local own, every = unpack(redis.call('HMGET', NAMESPACE .. ':tenants', tenant, '*'))
  local text = own or every
  return text and cjson.decode(text)
end

local function count_open_images(tenant)
  local sum = 0
  local counts = redis.call('HMGET', BACKLOG, 'images:' .. INTERACTIVE_QUEUE .. ':' .. tenant,
    'images:' .. BULK_QUEUE .. ':' .. tenant, 'images:' .. QUARANTINE_QUEUE .. ':' .. tenant,
    'images:' .. CONTROL_QUEUE .. ':' .. tenant)
  for _, count in ipairs(counts) do sum = sum + (tonumber(count) or 0) end
  return sum
end

-- Return the tokens in a bucket at this time.
local function refill(capacity, rate, level, at)
  if not (level and at) then return capacity end
  return math.min(capacity, tonumber(level) + math.max(0, now - tonumber(at)) * rate)
end

-- Charge a job to its tenant's quotas; returns nil, or what refuses the job:
-- {quota, limit, use, seconds until it may pass}. A refused job is charged for nothing.
local function charge(tenant, images, prompts, source)
  local policy, is_refusable = policy_of(tenant), source ~= 'adopt'
  if not policy then return nil end
  local max_open_images = tonumber(policy.max_open_images)
  if max_open_images and is_refusable then
    local used = count_open_images(tenant)
    local counted = source == 'run' and math.min(images, max_open_images) or images
    if used + counted > max_open_images then
      return {'max_open_images', max_open_images, used, OPEN_IMAGES_PAUSE_S}
    end
  end
  local key = NAMESPACE .. ':rates:' .. tenant
  local charged, full_in_s = {}, 0
  for unit, amount in pairs({images = images, prompts = prompts}) do
    local rate = tonumber(policy[unit .. '_per_s'])
    if rate and amount > 0 then
      local capacity = rate * BURST_S
      local level = refill(capacity, rate, unpack(redis.call('HMGET', key, unit, unit .. '_at')))
      local wait_s = (math.min(amount, capacity) - level) / rate
      if wait_s > 0 and is_refusable then return {unit .. '_per_s', rate, amount, wait_s} end
      local lowest = is_refusable and -math.huge or math.min(level, -rate * MAX_ADOPTED_DEBT_S)
      level = math.max(level - amount, lowest)
      for _, part in ipairs({unit, string.format('%.6f', level), unit .. '_at', stamp}) do
        charged[#charged + 1] = part
      end
      full_in_s = math.max(full_in_s, (capacity - level) / rate)
    end
  end
  if #charged > 0 then
    redis.call('HSET', key, unpack(charged))
    redis.call('EXPIRE', key, math.max(math.ceil(full_in_s), redis.call('TTL', key), 1))
  end
  return nil
end
