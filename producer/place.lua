-- Where a job waits in its queue. Prepended: flows.lua. Reads only; no step looks at more than a few jobs.
--
-- ARGV  1 model  2 step  3 tenant, escaped  4 enqueued_at, as the server wrote it into the job's record
--       5.. steps of the lanes that go before this one
-- Reply JSON {"ahead": jobs of its tenant in its lane that came before it, or false when it waits there no more,
--       "in_lane": all jobs of its lane, "in_urgent_lanes": of the lanes before it, "tenants": how many wait in its lane,
--       "running": its tenant's jobs under lease, "most_running": how many there may be, or false}
--       Jobs that were submitted in one call have one moment, and so one place.
local model, step, tenant, enqueued_at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local seconds, fraction = string.match(enqueued_at, '^(%d+)%.(%d+)$')
local moment = seconds .. string.sub(fraction .. '000000', 1, 6)

local function plain_lane(of_step)
  local queue = 'fleet.' .. model
  return of_step == '0' and queue or queue .. '\6\22' .. of_step
end

local function count_in_lane(of_step)
  return redis.call('LLEN', plain_lane(of_step)) + redis.call('LLEN', flow_lane(of_step, model))
end

-- Of the element at this place of the lane's list, 0 being the next to be taken; a message that does not tell came
-- before all others.
local function moment_at(lane, place)
  local message = redis.call('LINDEX', lane, -1 - place)
  local at, micro = string.match(string.sub(message, -64), '"enqueued_at": ?(%d+)%.?(%d*)')
  return at and at .. string.sub(micro .. '000000', 1, 6) or ''
end

-- How many elements of the list came before that moment, and whether the next one is of that moment. The list is in the
-- order of arrival but for what came back to its end, which came early anyhow.
local function before_in_list()
  local lane = plain_lane(step)
  local low, high = 0, redis.call('LLEN', lane)
  local length = high
  while low < high do
    local middle = math.floor((low + high) / 2)
    if moment_at(lane, middle) < moment then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, low < length and moment_at(lane, low) == moment
end

local order = flow_key('order', step, model)
local ahead = redis.call('ZLEXCOUNT', order, '[' .. tenant .. '|', '(' .. tenant .. '|' .. moment)
local waits = first_of(order, tenant .. '|' .. moment) and true or false
if tenant == '' then
  local before, is_there = before_in_list()
  ahead, waits = ahead + before, waits or is_there
end

local urgent = 0
for index = 5, #ARGV do
  urgent = urgent + count_in_lane(ARGV[index])
end
local _, most_running = tenant_terms(tenant)
return cjson.encode({
  ahead = waits and ahead,
  in_lane = count_in_lane(step),
  in_urgent_lanes = urgent,
  tenants = math.max(1, redis.call('ZCARD', flow_key('shares', step, model))),
  running = tonumber(redis.call('HGET', 'fleet:running:' .. model, tenant) or 0),
  most_running = tenant ~= '' and most_running or false
})
