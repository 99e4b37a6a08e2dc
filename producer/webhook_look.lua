-- Find jobs that have ended and whose webhook waits for it: the oldest and the newest each time (jobs of a lane end
-- nearly in their order, and urgent ones soon), and all others in turn, about every half second, or as often as the rate
-- allows that all deliverers share. Every few times round, jobs are found that Redis has lost. What is found is due.
--
-- ARGV  1 most of the oldest   2 most of the others   3 others per second   4 prefix of results   5 prefix of records
--       6 how long dead events are kept, in seconds
-- Reply how many were found, how many jobs are still awaited, 1 when an event is due (else 0)
local most_oldest, most_others, per_second = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local results, records, dead_seconds = ARGV[4], ARGV[5], tonumber(ARGV[6])
local SWEEP_SECONDS, LAPS_PER_CHECK, NEWEST, PORTION, MOST_TRIMMED = 0.5, 8, 64, 50, 100
local now, found = webhook_seconds(), 0

-- The same as read_note, of the job id alone, for the many that have not ended.
local function job_in(member)
  local tenant_end = string.find(member, ' ', 1, true)
  return string.sub(member, string.find(member, ' ', tenant_end + 1, true) + 1)
end

local function look_at(member, number, is_checked)
  local tenant, url, job_id = read_note(member)
  local head = redis.pcall('GETRANGE', results .. job_id, 0, 63)
  local has_ended = type(head) == 'string' and is_end(head)
  -- Neither result nor record: nobody knows the job any more, and that is told too.
  if not has_ended and (not is_checked or redis.call('EXISTS', records .. job_id) == 1) then
    return
  end
  local event = event_named(job_id, number)
  local model = redis.call('HGET', records .. job_id, 'model') or ''
  redis.call('ZREM', AWAITING, member)
  redis.call('HSET', event_key(event), 'job_id', job_id, 'tenant', tenant, 'url', url, 'model', model)
  redis.call('ZADD', DUE, now, event)
  found = found + 1
end

local function how_many_exist(prefix, noted, first, last)
  local names = {}
  for place = first, last, 2 do
    names[#names + 1] = prefix .. job_in(noted[place])
  end
  return redis.call('EXISTS', unpack(names))
end

-- Most have a record and no result: a portion of which that is true of all costs a command or two.
local function look_at_all(noted, is_checked)
  for first = 1, #noted, 2 * PORTION do
    local last = math.min(#noted - 1, first + 2 * PORTION - 2)
    local is_any_lost = is_checked and how_many_exist(records, noted, first, last) * 2 < last + 2 - first
    if is_any_lost or how_many_exist(results, noted, first, last) > 0 then
      for place = first, last, 2 do
        look_at(noted[place], noted[place + 1], is_checked)
      end
    end
  end
end

local count = redis.call('ZCARD', AWAITING)
if count > 0 then
  look_at_all(redis.call('ZRANGE', AWAITING, 0, most_oldest - 1, 'WITHSCORES'))
  look_at_all(redis.call('ZREVRANGE', AWAITING, 0, NEWEST - 1, 'WITHSCORES'))
  local swept, swept_at, lap = unpack(redis.call('HMGET', PLACES, 'swept', 'swept_at', 'lap'))
  local share = (now - (tonumber(swept_at) or 0)) / math.max(SWEEP_SECONDS, count / per_second)
  -- A clock that was set back must not stop the sweep.
  local others = share < 0 and 1 or math.floor(math.min(most_others, count * math.min(1, share)))
  if others > 0 then
    local next_ones = redis.call('ZRANGEBYSCORE', AWAITING, '(' .. (swept or 0), '+inf', 'WITHSCORES', 'LIMIT', 0, others)
    local is_over = #next_ones < 2 * others
    redis.call('HSET', PLACES, 'swept', is_over and 0 or next_ones[#next_ones], 'swept_at', string.format('%.6f', now))
    look_at_all(next_ones, tonumber(lap or 0) % LAPS_PER_CHECK == 0)
    if is_over then
      redis.call('HINCRBY', PLACES, 'lap', 1)
    end
  end
end

for _, event in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - dead_seconds, 'LIMIT', 0, MOST_TRIMMED)) do
  redis.call('ZREM', DEAD, event)
  redis.call('DEL', event_key(event))
end
local is_due = #redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 1)
return {found, redis.call('ZCARD', AWAITING), is_due}
