-- Cancel one job: answer it as revoked, at once and whether or not a worker is up, and tell the workers. All of it or
-- nothing. Safe to send again: what has ended stays as it is.
--
-- KEYS  1 fleet:job:<id>   2 celery-task-meta-<id>, also the channel that announces it
-- ARGV  as unpacked below. The keys of the queue are made here, because only the record knows the model.
-- Reply {'cancelled'}, {'ended', stored result}, {'superseded'} (the id is another submission's by now), {'untracked'}
--       (no producer submitted it) or {'unknown'}
local record, result = KEYS[1], KEYS[2]
local job_id, wanted_token, revoked, result_seconds, cancel_seconds = unpack(ARGV, 1, 5)
local cancels_prefix, cancelled_prefix = ARGV[6], ARGV[7]
local event_channel, event_head, event_middle, event_tail, no_worker = unpack(ARGV, 8, 12)

local token, model, worker = unpack(redis.call('HMGET', record, 'token', 'model', 'worker'))
if token and wanted_token ~= '' and token ~= wanted_token then
  return {'superseded'}
end
local stored = redis.call('GET', result)
local status = stored and string.match(string.sub(stored, 1, 64), '"status": ?"(%u+)"')
if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then
  -- Our own answer, when the reply to an earlier sending was lost.
  return stored == revoked and {'cancelled'} or {'ended', stored}
end
if not token then
  return {(stored or redis.call('EXISTS', record) == 1) and 'untracked' or 'unknown'}
end

-- This comes first: it is the one write that a foreign key of the wrong type could refuse. (And the very first takes no
-- memory, because a server that has none refuses a first write that could, and none behind it.)
local cancels = cancels_prefix .. model
redis.call('HDEL', cancels, '')
redis.call('HSET', cancels, job_id, token)
if redis.call('TTL', cancels) < tonumber(cancel_seconds) then
  redis.call('EXPIRE', cancels, cancel_seconds)
end
redis.call('SET', result, revoked)
redis.call('HSET', record, 'state', 'cancelled', 'ended', 'REVOKED')
if tonumber(result_seconds) > 0 then
  redis.call('EXPIRE', result, result_seconds)
  redis.call('EXPIRE', record, result_seconds)
end

-- What is cancelled stays cancelled when nobody may be told (pcall: an ACL can forbid a channel): callers and workers
-- look for themselves now and then.
redis.pcall('PUBLISH', result, revoked)
redis.pcall('PUBLISH', cancelled_prefix .. model, cjson.encode({job_id = job_id, submission_token = token}))
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
-- JSON inside a JSON string, hence encoded twice, and without the outer quotes, which are around the whole body.
local node = string.sub(cjson.encode(cjson.encode(worker or no_worker)), 2, -2)
redis.pcall('PUBLISH', event_channel, event_head .. node .. event_middle .. now .. event_tail)
return {'cancelled'}
