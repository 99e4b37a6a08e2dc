-- Put the message of a dead letter back into its lane, as new: all of it or nothing.
--
-- KEYS  1 fleet:dead   2 fleet:dead:index   3 celery-task-meta-<id>   4 fleet:job:<id>   5 fleet:cancels:<model>
--       6 the lane   7 the doorbell
-- ARGV  1 letter id   2 SHA-1 of the letter as it was read   3 job id   4 message   5 record lifetime in seconds
--       6 JSON of the job's webhook, or ''
-- Reply 'replayed', 'gone', or 'changed' (another letter has this id by now: read it again)
local dead, index, result, record, cancels, lane, doorbell = unpack(KEYS, 1, 7)
local letter_id, letter_sha, job_id, message, record_seconds, webhook = unpack(ARGV, 1, 6)

local letter = redis.call('HGET', dead, letter_id)
if not letter then
  return 'gone'
end
if redis.sha1hex(letter) ~= letter_sha then
  return 'changed'
end

-- The push comes first: it is the one write that a foreign key of the wrong type could refuse.
redis.call('LPUSH', lane, message)
if webhook ~= '' then
  note_webhook(job_id, cjson.decode(webhook))
end
if redis.call('LLEN', doorbell) < 16 then
  redis.call('LPUSH', doorbell, '1')
  redis.call('EXPIRE', doorbell, 3600)
end
redis.call('DEL', result)
redis.call('HDEL', cancels, job_id)
if redis.call('EXISTS', record) == 1 then
  redis.call('HSET', record, 'state', 'queued')
  redis.call('HDEL', record, 'worker', 'started_at', 'ended', 'attempts', 'handed_back')
  redis.call('EXPIRE', record, record_seconds)
end
redis.call('HDEL', dead, letter_id)
redis.call('ZREM', index, letter_id)
redis.call('HDEL', 'fleet:dead:models', letter_id)
return 'replayed'
