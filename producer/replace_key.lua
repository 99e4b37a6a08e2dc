-- Change what is known of a key of the gateway, unless it was changed or revoked meanwhile.
--
-- KEYS  1 fleet:keys
-- ARGV  1 digest  2 what was read of it  3 what is to be known of it
-- Reply 1, or 0 when it is not (any more) what was read
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
