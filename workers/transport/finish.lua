-- The end of jobs: result, acknowledgement and lease check in one step. Safe to send again after a lost reply.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 dead letters  5 their index  6.. one result key per job
-- ARGV  per job: tag, result (Celery's JSON), its lifetime in seconds (0: for ever), dead letter id, dead letter (JSON),
--       tokens that it took ('': not known)
-- Reply per job: 'stored', 'kept' (another attempt's result was there first) or 'fenced' (the lease was lost: nothing
--       was written)
local leases, leased, redelivery, dead, dead_index = unpack(KEYS, 1, 5)
local reply = {}

for job = 1, #KEYS - 5 do
  local key = KEYS[5 + job]
  local tag, result, lifetime_seconds, dead_id, letter, tokens = unpack(ARGV, job * 6 - 5, job * 6)
  local stored = redis.call('GET', key)
  if not settle(leases, leased, redelivery, tag, tonumber(tokens)) then
    reply[job] = stored == result and 'stored' or 'fenced'
  else
    if stored and is_terminal(stored) then
      reply[job] = 'kept'
    else
      if tonumber(lifetime_seconds) > 0 then
        redis.call('SET', key, result, 'EX', lifetime_seconds)
      else
        redis.call('SET', key, result)
      end
      redis.call('PUBLISH', key, result)
      reply[job] = 'stored'
      if dead_id ~= '' then
        redis.call('HSET', dead, dead_id, letter)
        redis.call('ZADD', dead_index, seconds_now(), dead_id)
      end
    end
  end
end
return reply
