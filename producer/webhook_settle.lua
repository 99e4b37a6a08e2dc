-- What came of an attempt.
--
-- ARGV  1 event   2 number of the attempt   3 'told', 'later' or 'dead'   4 seconds until the next attempt
--       5 what went wrong   6 body: what to tell when the result is gone   7 how long dead events are kept, in seconds
-- Reply 1, or 0 when another attempt was begun meanwhile, or the event is gone
local event, attempt, verdict, delay_seconds, wrong, body, dead_seconds = unpack(ARGV, 1, 7)
local key = event_key(event)

if verdict == 'told' then -- whoever told it: it is told
  redis.call('ZREM', DUE, event)
  redis.call('ZREM', DEAD, event)
  return redis.call('DEL', key)
end
if redis.call('HGET', key, 'attempts') ~= attempt or not redis.call('ZSCORE', DUE, event) then
  return 0
end
redis.call('HSET', key, 'error', wrong, 'body', body)
redis.call('HDEL', key, 'claimed_until')
local now = webhook_seconds()
if verdict == 'dead' then
  redis.call('ZREM', DUE, event)
  redis.call('ZADD', DEAD, now, event)
  redis.call('EXPIRE', key, dead_seconds)
else
  redis.call('ZADD', DUE, now + tonumber(delay_seconds), event)
end
return 1
