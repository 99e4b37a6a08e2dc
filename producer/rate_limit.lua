-- Charge a key of the gateway, or correct what it was charged: a token bucket each for requests and tokens, which holds
-- a minute's worth. What is stored is how much is missing from a full one; time fills it.
--
-- KEYS  1 fleet:rate:<key id>
-- ARGV  1 'ask': both fit, or nothing is charged; 'correct': charged whatever is there, a minute's worth of debt at most
--       2 requests a minute ('': no limit)  3 requests  4 tokens a minute ('': no limit)  5 tokens; less than none given
--       back
-- Reply {1, or 0 when it did not fit, then what is missing of requests and of tokens afterwards}
local bucket = KEYS[1]
local MINUTE = 60000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('HMGET', bucket, 'at', 'requests', 'tokens')
-- (The clock may have been set back.)
local elapsed = math.max(0, now - (tonumber(stored[1]) or now))
local missing, charged, fits, full_in = {}, {}, true, 0

for kind = 1, 2 do
  local limit, cost = tonumber(ARGV[kind * 2]), tonumber(ARGV[kind * 2 + 1])
  missing[kind], charged[kind] = 0, 0
  if limit then
    missing[kind] = math.max(0, (tonumber(stored[kind + 1]) or 0) - elapsed * limit / MINUTE)
    charged[kind] = missing[kind] + cost
    -- (Less than a millionth of one is rounding.)
    fits = fits and (cost <= 0 or charged[kind] <= limit + 0.000001)
    charged[kind] = math.min(math.max(charged[kind], 0), limit * 2)
    full_in = math.max(full_in, charged[kind] / limit * MINUTE)
  end
end
if ARGV[1] == 'ask' and not fits then
  return {0, string.format('%.6f', missing[1]), string.format('%.6f', missing[2])}
end
local reply = {1, string.format('%.6f', charged[1]), string.format('%.6f', charged[2])}
if tonumber(ARGV[3]) ~= 0 or tonumber(ARGV[5]) ~= 0 then
  redis.call('HSET', bucket, 'at', string.format('%.0f', now), 'requests', reply[2], 'tokens', reply[3])
  redis.call('PEXPIRE', bucket, string.format('%.0f', math.ceil(full_in / 1000) + 1000))
end
return reply
