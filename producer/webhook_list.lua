-- What is in the outbox.
--
-- ARGV  1 'pending' or 'dead'   2 how many to leave out   3 how many at most
-- Reply per event an array: name, job id, tenant, url, kind ('awaiting', 'due' or 'dead'), moment (next attempt, or given
--       up; '' for one whose job has not ended), attempts, what went wrong. Those that are due come before the awaited,
--       the next first; of dead ones the latest first.
local state, offset, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply = {}

local function add_events(kind, members)
  for place = 1, #members, 2 do
    local event = members[place]
    local job_id, tenant, url, attempts, wrong =
      unpack(redis.call('HMGET', event_key(event), 'job_id', 'tenant', 'url', 'attempts', 'error'))
    if job_id then
      reply[#reply + 1] = {event, job_id, tenant, url, kind, members[place + 1], attempts or '0', wrong or ''}
    end
  end
end

if state == 'dead' then
  add_events('dead', redis.call('ZREVRANGE', DEAD, offset, offset + limit - 1, 'WITHSCORES'))
  return reply
end
local due = redis.call('ZCARD', DUE)
local from_due = math.max(0, math.min(limit, due - offset))
if from_due > 0 then
  add_events('due', redis.call('ZRANGE', DUE, offset, offset + from_due - 1, 'WITHSCORES'))
end
if limit > from_due then
  local first = math.max(0, offset - due)
  local members = redis.call('ZRANGE', AWAITING, first, first + limit - from_due - 1, 'WITHSCORES')
  for place = 1, #members, 2 do
    local tenant, url, job_id = read_note(members[place])
    if job_id then
      reply[#reply + 1] = {event_named(job_id, members[place + 1]), job_id, tenant, url, 'awaiting', '', '0', ''}
    end
  end
end
return reply
