-- Prepended to every script of this folder, after producer/flows.lua, which says what a place is. What a lease entry and
-- a redelivery record look like is known only here.
--
-- lease entry        "<claim number> <place> <delivery> <retries> <claimed at> <worker>\n<message>"
-- charged            hash: tag to "<step>|<tenant>|<tokens>" for what was taken in a tenant's turn
-- redelivery record  "<deaths> <retries> <1 when suspect>\n<history: one JSON object a line>", by SHA-1 of the message
-- parked, suspect    "<place>\n<message>"

local function seconds_now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function split(entry)
  local at = string.find(entry, '\n', 1, true)
  return string.sub(entry, 1, at - 1), string.sub(entry, at + 1)
end

-- Of Celery's stored result; its first 64 bytes say so.
local function status_of(stored)
  return string.match(string.sub(stored, 1, 64), '"status": ?"(%u+)"')
end

-- Whether it is a job's last.
local function is_terminal(stored)
  local status = status_of(stored)
  return status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED'
end

-- A letter beside its index, and whose it is for those who count letters and may read none.
local function bury(dead, index, model, letter_id, letter)
  redis.call('HSET', dead, letter_id, letter)
  redis.call('ZADD', index, seconds_now(), letter_id)
  redis.call('HSET', 'fleet:dead:models', letter_id, model)
end

local function read_lease(entry)
  local head, message = split(entry)
  local number, place, delivery, retries, claimed_at, worker =
    string.match(head, '^(%d+) (%S+) (%d+) (%d+) ([%d.]+) (.*)$')
  return {
    number = tonumber(number), place = place, delivery = tonumber(delivery), retries = tonumber(retries),
    claimed_at = claimed_at, worker = worker, message = message
  }
end

-- Fresh for ever: the counter alone is not, because a server that lost its last writes counts the same numbers again.
local function new_tag(consumer, now, number)
  return string.format('%s.%.0f.%012d', consumer, now * 1000000, number)
end

local function claim_number(tag)
  return tonumber(string.match(tag, '(%d+)$'))
end

-- A message whose attempts never went wrong has no record, so the normal path costs one HLEN.
local function read_record(redelivery, message)
  local none = {deaths = 0, retries = 0, suspect = false, history = ''}
  if redis.call('HLEN', redelivery) == 0 then
    return none
  end
  local stored = redis.call('HGET', redelivery, redis.sha1hex(message))
  if not stored then
    return none
  end
  local head, history = split(stored)
  local deaths, retries, suspect = string.match(head, '^(%d+) (%d+) (%d)$')
  return {deaths = tonumber(deaths), retries = tonumber(retries), suspect = suspect == '1', history = history}
end

-- Whether a message is to be run apart. Above the last delivery nothing is run any more: anybody may answer it.
local function is_apart(record, max_deliveries)
  return record.suspect and record.deaths < max_deliveries
end

local function model_of(leases)
  return string.sub(leases, #'fleet:leases:' + 1)
end

-- To the consuming end of the suspects when it is run apart; otherwise to where it was: the consuming end of its lane's
-- list, or its old number in its tenant's flow.
local function put_back(places, place, message, record, max_deliveries)
  if is_apart(record, max_deliveries) then
    redis.call('RPUSH', places.suspects, place .. '\n' .. message)
  elseif places.lanes[place] then
    redis.call('RPUSH', places.lanes[place], message)
  else
    place_job(places.model, parse_place(place), message)
  end
end

-- Whole milliseconds, at least one: the server takes no others.
local function milliseconds(seconds)
  return string.format('%.0f', math.max(1, math.ceil(seconds * 1000)))
end

local function write_record(redelivery, message, record, lifetime_seconds)
  local head = record.deaths .. ' ' .. record.retries .. ' ' .. (record.suspect and '1' or '0')
  redis.call('HSET', redelivery, redis.sha1hex(message), head .. '\n' .. record.history)
  redis.call('EXPIRE', redelivery, lifetime_seconds)
end

-- `how`: 'lost', 'suspect' or 'retry', for programs; `event` is for people.
local function add_history(record, lease, how, event, now)
  local line = cjson.encode({
    at = string.format('%.6f', now), claimed_at = lease.claimed_at, worker = lease.worker,
    delivery = lease.delivery, how = how, event = event
  })
  record.history = record.history == '' and line or record.history .. '\n' .. line
end

local function ring(doorbell)
  if redis.call('LLEN', doorbell) == 0 then
    redis.call('LPUSH', doorbell, '1')
    redis.call('EXPIRE', doorbell, 3600)
  end
end

-- For everybody: those that wait for any message, and those that have room for urgent ones only.
local function ring_all(model)
  ring('fleet:doorbell:' .. model)
  ring('fleet:doorbell-urgent:' .. model)
end

-- A tenant that was at its limit has room again.
local function let_wait_again(model, tenant)
  local is_let = false
  for _, step in ipairs({'0', '3', '6', '9'}) do
    if redis.call('SREM', 'fleet:held:' .. model, step .. '|' .. tenant) == 1 and head_of(step, model, tenant) then
      enroll(step, model, tenant)
      is_let = true
    end
  end
  if is_let then
    ring_all(model)
  end
end

-- A tenant's job is under no lease any more. What it was charged was an estimate: the tokens that it took, if known,
-- take its place.
local function discharge(model, tag, tokens)
  local charged = redis.call('HGET', 'fleet:charged:' .. model, tag)
  if not charged then
    return
  end
  redis.call('HDEL', 'fleet:charged:' .. model, tag)
  local step, tenant, estimate = string.match(charged, '^(%d+)|([^|]*)|(%d+)$')
  if tokens then
    local weight = tenant_terms(tenant)
    local change = string.format('%.3f', (tokens - estimate) / weight)
    for _, kind in ipairs({'shares', 'spent'}) do
      if redis.call('ZSCORE', flow_key(kind, step, model), tenant) then
        redis.call('ZINCRBY', flow_key(kind, step, model), change, tenant)
      end
    end
  end
  if tenant ~= '' then
    if redis.call('HINCRBY', 'fleet:running:' .. model, tenant, -1) <= 0 then
      redis.call('HDEL', 'fleet:running:' .. model, tenant)
    end
    if redis.call('EXISTS', 'fleet:held:' .. model) == 1 then
      let_wait_again(model, tenant)
    end
  end
end

-- A server that is out of memory refuses a script's first write where that could take some, and none that come after.
-- Scripts by which jobs end begin with one that takes none: it must not hold them up.
local function write_when_full(leases)
  redis.call('ZREM', leases, '')
end

-- The end of a lease by its holder; false when it is not (or no longer) the holder's: the fence.
local function settle(leases, leased, redelivery, tag, tokens)
  if redis.call('ZREM', leases, tag) == 0 then
    return false
  end
  discharge(model_of(leases), tag, tokens)
  if redis.call('HLEN', redelivery) > 0 then
    local entry = redis.call('HGET', leased, tag)
    if entry then
      local _, message = split(entry)
      redis.call('HDEL', redelivery, redis.sha1hex(message))
    end
  end
  redis.call('HDEL', leased, tag)
  return true
end

local function holds_any(leases, consumer)
  local prefix = consumer .. '.'
  for _, tag in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if string.sub(tag, 1, #prefix) == prefix then
      return true
    end
  end
  return false
end

-- Takes these leases out and returns them, the last claimed first: pushed to the consuming end in this order, the
-- first claimed is the first to be claimed again.
local function take_out(leases, leased, tags)
  local taken = {}
  for _, tag in ipairs(tags) do
    if redis.call('ZREM', leases, tag) == 1 then
      discharge(model_of(leases), tag)
      local entry = redis.call('HGET', leased, tag)
      redis.call('HDEL', leased, tag)
      if entry then
        local lease = read_lease(entry)
        lease.tag = tag
        taken[#taken + 1] = lease
      end
    end
  end
  table.sort(taken, function(one, other) return one.number > other.number end)
  return taken
end

-- A delivery that ended in the death of its holder: counted, written down, and back to its place; or aside, when it is
-- suspected of having killed the holder and has a delivery left. Above the last delivery nothing was run: nothing is
-- counted, or a worker that dies again and again while it answers would make the record grow for ever.
local function count_death(places, lease, event, is_suspect, now, max_deliveries, lifetime_seconds)
  local record = read_record(places.redelivery, lease.message)
  if record.deaths < max_deliveries then
    record.deaths = record.deaths + 1
    add_history(record, lease, is_suspect and 'suspect' or 'lost', event, now)
    local has_one_left = record.deaths == max_deliveries - 1
    record.suspect = record.suspect or is_suspect or has_one_left
    write_record(places.redelivery, lease.message, record, lifetime_seconds)
  end
  put_back(places, lease.place, lease.message, record, max_deliveries)
end

local function lanes_by_step(first_key, first_argument, count)
  local lanes = {}
  for offset = 0, count - 1 do
    lanes[ARGV[first_argument + offset]] = KEYS[first_key + offset]
  end
  return lanes
end
