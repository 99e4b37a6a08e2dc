-- Write how far jobs are into their records.
--
-- KEYS  a record per job
-- ARGV  1 worker, then per job: state, moment of its start (empty: not started here), lifetime of the record in seconds
for job = 1, #KEYS do
  local state, started_at, lifetime_seconds = unpack(ARGV, job * 3 - 1, job * 3 + 1)
  if started_at == '' then
    redis.call('HSET', KEYS[job], 'state', state)
  else
    redis.call('HSET', KEYS[job], 'state', state, 'worker', ARGV[1], 'started_at', started_at)
  end
  redis.call('EXPIRE', KEYS[job], lifetime_seconds)
end
