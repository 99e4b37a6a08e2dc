-- Acknowledge what is done without a result, and claim up to `credit` messages: lanes in order, each message with a
-- fresh tag, under a lease by the server's clock.
--
-- KEYS  1 leases  2 leased  3 doorbell  4 redelivery  5 suspects  6 isolation  7 delayed  8 claim counter
--       9.. lanes, the most urgent first
-- ARGV  1 consumer  2 worker  3 credit  4 jobs the consumer holds  5 lease seconds  6 max deliveries  7 group size
--       8 lane count  9.. lane steps, then tags to acknowledge
-- Reply {now, 1 while the consumer runs suspects alone, then per message: tag, step, delivery, retries, history, message}
local leases, leased, doorbell, redelivery, suspects, isolation, delayed, counter = unpack(KEYS, 1, 8)
local consumer, worker = ARGV[1], ARGV[2]
local credit, held, lease_seconds = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_deliveries, group_size, lane_count = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local now = seconds_now()
local reply = {string.format('%.6f', now), 0}
local taken = 0

for index = 9 + lane_count, #ARGV do
  settle(leases, leased, redelivery, ARGV[index])
end
if credit == 0 then
  return reply
end

local function lease(step, message, record)
  local number = redis.call('INCR', counter)
  local tag = new_tag(consumer, now, number)
  local delivery = record.deaths + 1
  local head = table.concat({number, step, delivery, record.retries, reply[1], worker}, ' ')
  redis.call('HSET', leased, tag, head .. '\n' .. message)
  redis.call('ZADD', leases, now + lease_seconds, tag)
  taken = taken + 1
  for _, part in ipairs({tag, step, delivery, record.retries, record.history, message}) do
    reply[#reply + 1] = part
  end
end

local function any_waits()
  for index = 1, lane_count do
    if redis.call('LLEN', KEYS[8 + index]) > 0 then
      return true
    end
  end
  return false
end

-- What waited for its time goes to the consuming end: it has waited long enough.
local places = {suspects = suspects, lanes = lanes_by_step(9, 9, lane_count)}
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 64)
for index = #due, 1, -1 do
  redis.call('ZREM', delayed, due[index])
  local step, message = split(due[index])
  put_back(places, step, message, read_record(redelivery, message), max_deliveries)
end

-- Suspects are run by one consumer at a time, which first finishes everything else it holds, so that the engine they
-- may kill has nobody else's jobs in it. The others go on meanwhile.
local isolating = redis.call('GET', isolation) == consumer
local suspect_count = redis.call('LLEN', suspects)
if not isolating and suspect_count > 0 then
  isolating = redis.call('SET', isolation, consumer, 'NX', 'PX', milliseconds(lease_seconds)) and true or false
end
if isolating then
  if held > 0 or suspect_count > 0 then
    reply[2] = 1
    -- It may have taken the token that was for what is in the lanes, which is for others now.
    if any_waits() then
      ring(doorbell)
    end
    redis.call('PEXPIRE', isolation, milliseconds(lease_seconds))
  else
    redis.call('DEL', isolation)
  end
  if held > 0 then
    return reply
  end
  while taken < math.min(credit, group_size) do
    local entry = redis.call('LINDEX', suspects, -1)
    if not entry then
      break
    end
    local step, message = split(entry)
    local record = read_record(redelivery, message)
    local is_last_delivery = record.deaths + 1 >= max_deliveries
    if is_last_delivery and taken > 0 then
      break
    end
    redis.call('RPOP', suspects)
    lease(step, message, record)
    if is_last_delivery then
      break
    end
  end
  if taken > 0 then
    return reply
  end
end

for index = 1, lane_count do
  local lane = KEYS[8 + index]
  while taken < credit do
    local message = redis.call('RPOP', lane)
    if not message then
      break
    end
    lease(ARGV[8 + index], message, read_record(redelivery, message))
  end
  -- A doorbell token wakes one consumer: what it leaves behind is for the next.
  if taken >= credit and redis.call('LLEN', lane) > 0 then
    ring(doorbell)
    break
  end
end
return reply
