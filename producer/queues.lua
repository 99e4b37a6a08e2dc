-- What is where in the queues of these models, and how long the oldest waits. Prepended: flows.lua. Reads only; no step
-- looks at more than a few jobs, however many wait.
--
-- ARGV  1 the most tenants of a lane that are looked at   2 how many lanes   3.. their steps, then the models
-- Reply JSON array with, for each model, {"leased", "delayed", "suspect", "waiting": by lane, "oldest": by lane the
--       seconds since its oldest job came, or false where nothing tells}
local most_tenants, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

-- The list's oldest is the next to be taken: what came back to that end came early. (pcall: an exporter can be kept from
-- reading messages.)
local function oldest_listed(lane)
  local message = redis.pcall('LINDEX', lane, -1)
  return type(message) == 'string' and tonumber(string.match(string.sub(message, -64), '"enqueued_at": ?([%d.]+)'))
end

-- Each tenant's flow is in the order of arrival: from one tenant's first job to the next tenant's.
local function oldest_in_flows(step, model)
  local order, oldest = flow_key('order', step, model), nil
  local from = '-'
  for _ = 1, most_tenants do
    local member = redis.call('ZRANGEBYLEX', order, from, '+', 'LIMIT', 0, 1)[1]
    if not member then
      break
    end
    local tenant, moment = string.match(member, '^([^|]*)|(%d+)')
    local at = tonumber(string.sub(moment, 1, 16)) / 1000000
    oldest = math.min(oldest or at, at)
    from = '(' .. tenant .. '|\255'
  end
  return oldest
end

local found = {}
for index = count + 3, #ARGV do
  local model = ARGV[index]
  local waiting, oldest = {}, {}
  for lane = 1, count do
    local step = ARGV[lane + 2]
    local list = 'fleet.' .. model .. (step == '0' and '' or '\6\22' .. step)
    local in_flows = redis.call('LLEN', flow_lane(step, model))
    waiting[lane] = redis.call('LLEN', list) + in_flows
    local listed, flowing = oldest_listed(list), in_flows > 0 and oldest_in_flows(step, model) or nil
    local first = listed and flowing and math.min(listed, flowing) or listed or flowing
    oldest[lane] = first and math.max(0, now - first) or false
  end
  table.insert(found, {
    leased = redis.call('ZCARD', 'fleet:leases:' .. model),
    delayed = redis.call('ZCARD', 'fleet:delayed:' .. model),
    suspect = redis.call('LLEN', 'fleet:suspects:' .. model),
    waiting = waiting,
    oldest = oldest
  })
end
return cjson.encode(found)
