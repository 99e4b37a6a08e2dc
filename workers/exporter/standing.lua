-- What the queues of these models hold beside their counts: leases that nobody renews, deaths, tenants at their limit, and
-- of how many tokens a few of the waiting jobs are. Prepended: flows.lua. Reads only; no step looks at more than a few
-- jobs, however many wait.
--
-- ARGV  1 seconds within which a lease ends that is late  2 jobs of each end of a lane that are looked at
--       3 output tokens of a job that names none  4 how many lanes  5.. their steps, then the models
-- Reply JSON array with, for each model, {"late_leases", "redelivered", "held_tenants", "lanes": by lane {"sampled" jobs,
--       "prompt_bytes", "prompt_tokens" and "output_tokens" of them together, "may_go": whether anybody of it may be
--       taken now, as far as tenants' limits go}}
local late_seconds, most, default_output, count = unpack(ARGV, 1, 4)
late_seconds, most, default_output, count = tonumber(late_seconds), tonumber(most), tonumber(default_output),
  tonumber(count)
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
-- What is around the prompt in a message is less than this.
local ENVELOPE_BYTES = 1000

-- A message that may not be read is not sampled.
local function add_message(lane, message)
  if type(message) ~= 'string' then
    return
  end
  lane.sampled = lane.sampled + 1
  lane.prompt_bytes = lane.prompt_bytes + math.max(1, #message - ENVELOPE_BYTES)
  lane.output_tokens = lane.output_tokens
    + (tonumber(string.match(message, 'max_tokens\\?": ?(%d+)')) or default_output)
end

-- From both ends: the middle of a long list is far away.
local function sample_list(lane, key)
  local length = redis.call('LLEN', key)
  for place = 0, math.min(most, length) - 1 do
    add_message(lane, redis.pcall('LINDEX', key, place))
    if place < length - most then
      add_message(lane, redis.pcall('LINDEX', key, -1 - place))
    end
  end
  return length
end

local function sample_flows(lane, step, model)
  local order = flow_key('order', step, model)
  if redis.call('ZCARD', order) == 0 then
    return
  end
  for _, member in ipairs(redis.call('ZRANDMEMBER', order, 2 * most)) do
    local waiting = redis.pcall('HGET', 'fleet:waiting:' .. model, string.match(member, '(%d+)$'))
    local at = type(waiting) == 'string' and parse_place(string.match(waiting, '^[^\n]*'))
    if at then
      local is_tokens = string.sub(at.prompt, 1, 1) == 't'
      local size = tonumber(is_tokens and string.sub(at.prompt, 2) or at.prompt)
      local kind = is_tokens and 'prompt_tokens' or 'prompt_bytes'
      lane.sampled = lane.sampled + 1
      lane[kind] = lane[kind] + size
      lane.output_tokens = lane.output_tokens + (tonumber(at.output) or default_output)
    end
  end
end

local found = {}
for index = count + 5, #ARGV do
  local model = ARGV[index]
  local lanes = {}
  for number = 1, count do
    local step = ARGV[number + 4]
    local lane = {sampled = 0, prompt_bytes = 0, prompt_tokens = 0, output_tokens = 0}
    local listed = sample_list(lane, 'fleet.' .. model .. (step == '0' and '' or '\6\22' .. step))
    sample_flows(lane, step, model)
    lane.may_go = listed > 0 or redis.call('ZCARD', flow_key('shares', step, model)) > 0
    lanes[number] = lane
  end
  table.insert(found, {
    late_leases = redis.call('ZCOUNT', 'fleet:leases:' .. model, '-inf', now + late_seconds),
    redelivered = redis.call('HLEN', 'fleet:redelivery:' .. model),
    held_tenants = redis.call('SCARD', 'fleet:held:' .. model),
    lanes = lanes
  })
end
return cjson.encode(found)
