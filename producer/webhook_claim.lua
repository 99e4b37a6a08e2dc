-- Claim events that are due, each for one attempt under a lease. One that is killed meanwhile is due again when the
-- lease ends, and that attempt has counted.
--
-- ARGV  1 most events   2 lease in seconds   3 most attempts at one receiver at a time
--       4 JSON: receiver to the attempts that this deliverer is making   5 prefix of results   6 prefix of records
-- Reply now, 1 when others are due that were not claimed (else 0), then per event an array: name, receiver, attempts with this one, attempts before its last replay, job id,
--       tenant, url, model, body or '', its tenant's secrets or '', the job's result or ''
local most_events, lease_seconds, most_at_one = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local running, results, records = cjson.decode(ARGV[4]), ARGV[5], ARGV[6]
local MOST_LOOKED_AT, MOST_KEPT, FIRST = 200, 32, 2
local now = webhook_seconds()
local reply = {string.format('%.6f', now), 0}

local function forget(event)
  redis.call('ZREM', DUE, event)
  redis.call('DEL', event_key(event))
end

local function claim(event, receiver, fields)
  local job_id, tenant, url, model, body, before = unpack(fields, 1, 6)
  local result = redis.pcall('GET', results .. job_id)
  result = type(result) == 'string' and result or ''
  local has_ended = is_end(string.sub(result, 1, 64))
  if not has_ended and not body and redis.call('EXISTS', records .. job_id) == 1 then
    forget(event) -- its dead letter was replayed: the job runs again, and has another note
    return
  end
  local attempts = redis.call('HINCRBY', event_key(event), 'attempts', 1)
  local lease_end = string.format('%.6f', now + lease_seconds)
  redis.call('HSET', event_key(event), 'claimed_until', lease_end)
  redis.call('ZADD', DUE, lease_end, event)
  running[receiver] = (running[receiver] or 0) + 1
  reply[#reply + 1] = {event, receiver, attempts, tonumber(before or 0), job_id, tenant, url, model, body or '',
    redis.call('HGET', SECRETS, tenant) or '', has_ended and result or ''}
end

local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, MOST_LOOKED_AT)
local passed_over = {}
for _, event in ipairs(due) do
  if #reply - FIRST >= most_events then
    reply[2] = 1
    return reply
  end
  local fields = redis.call('HMGET', event_key(event), 'job_id', 'tenant', 'url', 'model', 'body', 'attempts_before')
  local receiver = fields[3] and string.lower(string.match(fields[3], '^%a+://([^/?#]+)') or '')
  if not receiver then
    forget(event)
  elseif (running[receiver] or 0) >= most_at_one then
    passed_over[#passed_over + 1] = event
  else
    claim(event, receiver, fields)
  end
end
reply[2] = #passed_over > 0 and 1 or 0
-- A receiver that is slow must not keep others from their turn: most of its events step back when they fill the view.
if #due == MOST_LOOKED_AT then
  for place = MOST_KEPT + 1, #passed_over do
    redis.call('ZADD', DUE, now + 1 + place % 4, passed_over[place])
  end
end
return reply
