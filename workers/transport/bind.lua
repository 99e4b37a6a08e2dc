-- Kombu's note of which queue hangs on which exchange, written also by a server that is out of memory: there the worker
-- that starts is who will make room.
--
-- KEYS  1 the exchange's bindings   2 the deadlines of all that expire, or the exchange's bindings that stay
-- ARGV  1 the binding   2 the exchange   3 milliseconds until it expires; empty: it stays
redis.call('SREM', KEYS[1], '')  -- a script's first write is refused where it could take memory, those after it are not
redis.call('SADD', KEYS[1], ARGV[1])
if ARGV[3] == '' then
  redis.call('SADD', KEYS[2], ARGV[1])
else
  local now = redis.call('TIME')
  local milliseconds = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('ZADD', KEYS[2], 'GT', milliseconds + ARGV[3], ARGV[2])
end
