-- Prepended to every script that moves messages in or out of a queue: how jobs wait that are more than first come,
-- first served, because they have a tenant, a deadline or a prompt prefix that others share.
--
-- place     where a message waits: its lane's step alone, for one in the lane's list; otherwise
--           "<step>|<tenant, escaped>|<number>|<prompt>|<output tokens>|<deadline>|<prefix>": number is its arrival (16
--           digits of microseconds, 6 of order), prompt its size ("t" and tokens, or bytes), the rest may be empty
-- waiting   hash: number to "<place>\n<message>"
-- order     per step, a sorted set by name: "<tenant>|<number>"
-- prefixes  the same: "<tenant>|<prefix>|<number>"
-- deadlines per step, a sorted set: number by deadline
-- shares    per step, a sorted set: tenants that wait, by the tokens they were given, over their weight (start-time fair
--           queueing: Goyal, Vin, Cheng 1996). The tenant without a name is in it while others are, for its flow and
--           the lane's list together.
-- spent     the same for tenants that do not wait now, as far as it still counts
-- running   hash: tenant to jobs under lease; held: "<step>|<tenant>" for tenants at their limit
-- A list beside each lane has one element per job in flows, so that LLEN tells how many wait.

local TENANTS = 'fleet:tenants'

-- What an operator gave the tenant: its weight, its limit of jobs under lease and that of jobs that wait (nil: none).
local function tenant_terms(tenant)
  local stored = redis.call('HGET', TENANTS, tenant) or ''
  local weight, most_running, most_waiting = string.match(stored, '^(%S+) (%d*) ?(%d*)$')
  return tonumber(weight) or 1, tonumber(most_running), tonumber(most_waiting)
end

local function flow_key(kind, step, model)
  return 'fleet:' .. kind .. ':' .. step .. ':' .. model
end

local function flow_lane(step, model)
  return 'fleet.' .. model .. '\6\22' .. (tonumber(step) + 1)
end

local function parse_place(place)
  local step, tenant, number, prompt, output, deadline, prefix =
    string.match(place, '^(%d+)|([^|]*)|(%d+)|(t?%d+)|(%d*)|([%d.]*)|(%x*)$')
  if not step then
    return nil
  end
  return {step = step, tenant = tenant, number = number, prompt = prompt, output = output, deadline = deadline,
    prefix = prefix, text = place}
end

local function first_of(key, beginning)
  return redis.call('ZRANGEBYLEX', key, '[' .. beginning, '(' .. beginning .. '\255', 'LIMIT', 0, 1)[1]
end

-- How many jobs of a tenant wait in flows of a lane: two ranks, however many there are.
local function count_waiting(step, model, tenant)
  return redis.call('ZLEXCOUNT', flow_key('order', step, model), '[' .. tenant .. '|', '(' .. tenant .. '|\255')
end

local function head_of(step, model, tenant)
  local member = first_of(flow_key('order', step, model), tenant .. '|')
  return member and string.sub(member, #tenant + 2)
end

-- A tenant begins to wait: not before those that wait already, and not before what it has spent.
local function enroll(step, model, tenant)
  local shares, spent = flow_key('shares', step, model), flow_key('spent', step, model)
  local first = redis.call('ZRANGE', shares, 0, 0, 'WITHSCORES')
  local now = tonumber(first[2] or 0)
  local own = tonumber(redis.call('ZSCORE', spent, tenant) or 0)
  redis.call('ZADD', shares, 'NX', string.format('%.3f', math.max(now, own)), tenant)
  if own > 0 then
    redis.call('ZREM', spent, tenant)
  end
end

local function is_held(step, model, tenant)
  return redis.call('SISMEMBER', 'fleet:held:' .. model, step .. '|' .. tenant) == 1
end

local function place_job(model, at, message)
  local step, number = at.step, at.number
  redis.call('LPUSH', flow_lane(step, model), '')
  redis.call('HSET', 'fleet:waiting:' .. model, number, at.text .. '\n' .. message)
  redis.call('ZADD', flow_key('order', step, model), 0, at.tenant .. '|' .. number)
  if at.deadline ~= '' then
    redis.call('ZADD', flow_key('deadlines', step, model), at.deadline, number)
  end
  if at.prefix ~= '' then
    redis.call('ZADD', flow_key('prefixes', step, model), 0, at.tenant .. '|' .. at.prefix .. '|' .. number)
  end
  if not redis.call('ZSCORE', flow_key('shares', step, model), at.tenant) and not is_held(step, model, at.tenant) then
    enroll(step, model, at.tenant)
  end
end

-- The number of a new arrival: by time, then by its order in this run of a script.
local function arrival_number(model, time, order)
  local microseconds = time[1] * 1000000 + time[2]
  local number = string.format('%016.0f%06d', microseconds, order % 1000000)
  while redis.call('HEXISTS', 'fleet:waiting:' .. model, number) == 1 do  -- the clock was set back
    microseconds = microseconds + 1
    number = string.format('%016.0f%06d', microseconds, order % 1000000)
  end
  return number
end
