-- Submit one job: all of it or nothing. Safe to send again: a job id that is known is not queued a second time.
--
-- KEYS  1 fleet:models   2 fleet:job:<id>   3 the lane   4 the doorbell
--       5 fleet:idempotency:<tenant>:<key>, only with a key
-- ARGV  as unpacked below. A message is head .. enqueued_at .. tail: only the server knows the time, and nothing is
--       ever substituted inside what a caller wrote.
-- Reply {'queued', job id, enqueued_at, submission token}, {'duplicate', the same of the earlier submission},
--       {'conflict', job id} or {'unknown_model', known names...}
local models, record, lane, doorbell, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local job_id, token, model, tenant, priority, digest, record_seconds = unpack(ARGV, 1, 7)
local head, tail, event_channel, event_head, event_tail = unpack(ARGV, 8, 12)
local record_prefix = ARGV[13]

local known = redis.call('HMGET', record, 'token', 'enqueued_at')
if known[1] then
  return {known[1] == token and 'queued' or 'duplicate', job_id, known[2], known[1]}
end

if idempotency then
  local earlier = redis.call('HMGET', idempotency, 'job_id', 'body_digest', 'enqueued_at')
  -- A record ends with its job's result: then the key is free, for it would name a job that nobody knows any more.
  local earlier_token = earlier[1] and redis.call('HGET', record_prefix .. earlier[1], 'token')
  if earlier_token then
    if earlier[2] == digest then
      return {'duplicate', earlier[1], earlier[3], earlier_token}
    end
    return {'conflict', earlier[1]}
  end
end

if redis.call('HEXISTS', models, model) == 0 then
  return {'unknown_model', unpack(redis.call('HKEYS', models))}
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])

-- The push comes first: it is the one write that a foreign key of the wrong type could refuse.
redis.call('LPUSH', lane, head .. now .. tail)
-- One token wakes one worker, which rings on when it leaves something behind; a few are enough for all of them.
if redis.call('LLEN', doorbell) < 16 then
  redis.call('LPUSH', doorbell, '1')
  redis.call('EXPIRE', doorbell, 3600)
end
redis.call('HSET', record, 'token', token, 'model', model, 'tenant', tenant, 'priority', priority,
  'enqueued_at', now, 'body_digest', digest)
redis.call('EXPIRE', record, record_seconds)
if idempotency then
  redis.call('HSET', idempotency, 'job_id', job_id, 'body_digest', digest, 'enqueued_at', now)
  redis.call('EXPIRE', idempotency, record_seconds)
end
-- A job that is queued stays queued when the monitors may not be told (pcall: an ACL can forbid the channel).
redis.pcall('PUBLISH', event_channel, event_head .. now .. event_tail)
return {'queued', job_id, now, token}
