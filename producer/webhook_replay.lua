-- Let an event be due at once, with all its attempts before it: one that was given up, or waits for its next attempt.
--
-- ARGV  1 event
-- Reply 'due', 'delivering' (an attempt is being made) or 'unknown'
local event = ARGV[1]
local key = event_key(event)
local attempts, claimed_until = unpack(redis.call('HMGET', key, 'attempts', 'claimed_until'))
local now = webhook_seconds()

if redis.call('EXISTS', key) == 0 then
  return 'unknown'
end
if redis.call('ZREM', DEAD, event) == 1 then
  redis.call('PERSIST', key)
elseif not redis.call('ZSCORE', DUE, event) then
  return 'unknown'
elseif claimed_until and tonumber(claimed_until) > now then
  return 'delivering'
end
redis.call('HSET', key, 'attempts_before', attempts or 0)
redis.call('ZADD', DUE, now, event)
return 'due'
