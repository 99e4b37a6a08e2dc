-- A worker says that it is there, or that it goes. Whoever was not heard of in time is forgotten meanwhile.
--
-- KEYS  1 fleet:workers   2 fleet:workers:said
-- ARGV  1 the worker's node name   2 what it says (JSON); empty: it goes   3 seconds that its word counts
local present, said = KEYS[1], KEYS[2]
local worker, words, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local forgotten = redis.call('ZRANGEBYSCORE', present, '-inf', string.format('%.6f', now))
if words == '' then
  forgotten[#forgotten + 1] = worker
else
  redis.call('ZREM', present, '')  -- a first write that takes no memory: a server without any takes those behind it too
  redis.call('HSET', said, worker, words)
  redis.call('ZADD', present, string.format('%.6f', now + seconds), worker)
end
for _, each in ipairs(forgotten) do
  if words == '' or each ~= worker then
    redis.call('ZREM', present, each)
    redis.call('HDEL', said, each)
  end
end
