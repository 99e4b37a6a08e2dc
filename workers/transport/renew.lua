-- Renew what the consumer holds.
--
-- KEYS  1 leases  2 isolation  3 cancels
-- ARGV  1 consumer  2 lease seconds  3.. tags
-- Reply {1 when cancellations are on file, then tags whose lease is lost}
local leases, isolation, cancels = unpack(KEYS, 1, 3)
local consumer, lease_seconds = ARGV[1], tonumber(ARGV[2])
local expires_at = seconds_now() + lease_seconds
local reply = {redis.call('EXISTS', cancels)}
write_when_full(leases)
for index = 3, #ARGV do
  if redis.call('ZSCORE', leases, ARGV[index]) then
    redis.call('ZADD', leases, expires_at, ARGV[index])
  else
    reply[#reply + 1] = ARGV[index]
  end
end
if redis.call('GET', isolation) == consumer then
  redis.call('PEXPIRE', isolation, milliseconds(lease_seconds))
end
return reply
