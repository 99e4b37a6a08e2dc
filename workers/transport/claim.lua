-- Acknowledge what is done without a result, and claim up to `credit` messages, each with a fresh tag, under a lease by
-- the server's clock.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 suspects  5 isolation  6 delayed  7 claim counter
--       8.. lanes, the most urgent first
-- ARGV  1 consumer  2 worker  3 credit: jobs that fit  4 reserve: so many of them for the most urgent lane alone
--       5 jobs the consumer holds  6 lease seconds  7 max deliveries  8 group size  9 options of drain.lua (JSON)
--       10 lane count  11.. lane steps, then tags to acknowledge
-- Reply {now, 1 while the consumer runs suspects alone, 1 when what is next needs more memory than there is room, then
--       per message: tag, place, delivery, retries, history, message, tokens of KV cache (an estimate)}
local leases, leased, redelivery, suspects, isolation, delayed, counter = unpack(KEYS, 1, 7)
local consumer, worker = ARGV[1], ARGV[2]
local credit, reserve, held, lease_seconds = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local max_deliveries, group_size, lane_count = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[10])
local options = cjson.decode(ARGV[9])
local model = model_of(leases)
local now = seconds_now()
local reply = {string.format('%.6f', now), 0, 0}
local taken_count, taken_bytes = 0, 0

for index = 11 + lane_count, #ARGV do
  settle(leases, leased, redelivery, ARGV[index])
end
if credit == 0 then
  return reply
end
write_when_full(leases)

-- Of what is rare, one question tells that there is none: of what a plain queue needs no look at.
local is_plain = redis.call('EXISTS', delayed, suspects, isolation, redelivery, 'fleet:waiting:' .. model,
  'fleet:held:' .. model) == 0
local NO_RECORD = {deaths = 0, retries = 0, suspect = false, history = ''}

-- Leases are written together, when all are known.
local claims_before
local ends, entries = {}, {}

local function lease(item)
  item.message = bounded(options, item.message)
  taken_bytes = taken_bytes + #item.message
  local record = is_plain and NO_RECORD or read_record(redelivery, item.message)
  claims_before = claims_before or tonumber(redis.call('GET', counter) or 0)
  local number = claims_before + taken_count + 1
  local tag = new_tag(consumer, now, number)
  local delivery = record.deaths + 1
  local head = table.concat({number, item.place, delivery, record.retries, reply[1], worker}, ' ')
  entries[#entries + 1] = tag
  entries[#entries + 1] = head .. '\n' .. item.message
  ends[#ends + 1] = now + lease_seconds
  ends[#ends + 1] = tag
  if item.tenant then
    local charged = string.match(item.place, '^%d+') .. '|' .. item.tenant .. '|' .. item.tokens
    redis.call('HSET', 'fleet:charged:' .. model, tag, charged)
    if item.tenant ~= '' then
      redis.call('HINCRBY', 'fleet:running:' .. model, item.tenant, 1)
    end
  end
  taken_count = taken_count + 1
  local memory = memory_of(options, item.tokens)
  for _, part in ipairs({tag, item.place, delivery, record.retries, record.history, item.message, memory}) do
    reply[#reply + 1] = part
  end
end

local function write_leases()
  if taken_count > 0 then
    redis.call('INCRBY', counter, taken_count)
    redis.call('HSET', leased, unpack(entries))
    redis.call('ZADD', leases, unpack(ends))
  end
end

-- A token of a doorbell wakes one consumer: what is left here that others could take is for the next.
local function ring_for_what_is_left(queue)
  for index = 1, lane_count do
    if waits(queue, index) and not queue.at_limit[index] and not (index == 1 and options.skips_urgent) then
      ring((index == 1 and 'fleet:doorbell-urgent:' or 'fleet:doorbell:') .. model)
    end
  end
end

-- What waited for its time goes to the consuming end: it has waited long enough.
local function put_back_what_is_due()
  local places = {suspects = suspects, model = model, lanes = lanes_by_step(8, 11, lane_count)}
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 64)
  for index = #due, 1, -1 do
    redis.call('ZREM', delayed, due[index])
    local place, message = split(due[index])
    put_back(places, place, message, read_record(redelivery, message), max_deliveries)
  end
end

if not is_plain then
  put_back_what_is_due()
end

local steps, lanes = {unpack(ARGV, 11, 10 + lane_count)}, {unpack(KEYS, 8, 7 + lane_count)}
local queue = open_queue(model, steps, lanes, options, is_plain)
queue.holds_nothing = held == 0

-- Suspects are run by one consumer at a time, which first finishes everything else it holds, so that the engine they
-- may kill has nobody else's jobs in it. The others go on meanwhile.
local isolating = not is_plain and redis.call('GET', isolation) == consumer
local suspect_count = is_plain and 0 or redis.call('LLEN', suspects)
if not isolating and suspect_count > 0 then
  isolating = redis.call('SET', isolation, consumer, 'NX', 'PX', milliseconds(lease_seconds)) and true or false
end
if isolating then
  if held > 0 or suspect_count > 0 then
    reply[2] = 1
    -- It may have taken the token that was for what is in the lanes, which is for others now.
    ring_for_what_is_left(queue)
    redis.call('PEXPIRE', isolation, milliseconds(lease_seconds))
  else
    redis.call('DEL', isolation)
  end
  if held > 0 then
    return reply
  end
  while taken_count < math.min(credit, group_size) do
    local entry = redis.call('LINDEX', suspects, -1)
    if not entry then
      break
    end
    local place, message = split(entry)
    local is_last_delivery = read_record(redelivery, message).deaths + 1 >= max_deliveries
    if is_last_delivery and taken_count > 0 then
      break
    end
    redis.call('RPOP', suspects)
    lease({place = place, message = message, tokens = estimate_tokens(queue.options, parse_place(place), message)})
    if is_last_delivery then
      break
    end
  end
  if taken_count > 0 then
    write_leases()
    return reply
  end
end

local function claim_in_turn()
  if not is_plain then
    look_at_one_held(queue)
  end
  queue.blocked[1] = options.skips_urgent
  -- One reply has no more than one message of the largest size may have, and one more: it is held in memory here and there.
  while taken_count < credit and not queue.is_full and taken_bytes < options.max_message_bytes do
    -- The reserve is for the most urgent lane: what else is taken leaves it.
    if taken_count >= credit - reserve then
      for index = 2, lane_count do
        queue.blocked[index] = true
      end
    end
    local index = next_lane(queue, now)
    if not index then
      break
    end
    local item = take_from(queue, index, now)
    if item then
      lease(item)
      served(queue, index, now)
      if item.tenant then
        charge(queue, index, item.tenant, item.tokens)
      end
    end
  end
  close_queue(queue)
  ring_for_what_is_left(queue)
end

-- A stranger's key of the wrong type must not cost the messages that are out of their lanes by then: they are leased,
-- and the consumer, which gets an error for an answer, gives them back.
local has_worked, trouble = pcall(claim_in_turn)
write_leases()
if not has_worked then
  error(trouble)
end
reply[3] = queue.is_full and 1 or 0
return reply
