-- Write how far jobs are into their records.
--
-- KEYS  a record per job
-- ARGV  1 worker, then per job: state, moment of its start (empty: not started here), attempt, lifetime of the record in
--       seconds, lines of its attempts that went wrong (empty: none, or written before), line of this one that its
--       worker handed back (empty: it was not). The lines are producer/attempts.py's.
local MOST_HANDED_BACK = 20  -- as many as producer/attempts.py keeps of the others

-- Whether the record still tells of this start: another worker may have begun again before this one says that it gave up.
local function hand_back(record, started_at, line)
  local worker, latest, lines = unpack(redis.call('HMGET', record, 'worker', 'started_at', 'handed_back'))
  lines = lines and lines .. '\n' .. line or line
  local _, breaks = string.gsub(lines, '\n', '')
  for _ = MOST_HANDED_BACK, breaks do
    lines = string.match(lines, '\n(.*)')
  end
  redis.call('HSET', record, 'handed_back', lines)
  return worker == ARGV[1] and latest == started_at
end

redis.call('HDEL', KEYS[1], '')  -- a first write that takes no memory: a server without any takes those behind it too
for job = 1, #KEYS do
  local record = KEYS[job]
  local state, started_at, attempt, lifetime_seconds, went_wrong, handed_back = unpack(ARGV, job * 6 - 4, job * 6 + 1)
  local is_told = true
  if handed_back ~= '' then
    -- A record that is gone is not made again.
    is_told = redis.call('EXISTS', record) == 1 and hand_back(record, started_at, handed_back)
    started_at = ''
  end
  if is_told then
    if started_at == '' then
      redis.call('HSET', record, 'state', state)
    else
      redis.call('HSET', record, 'state', state, 'worker', ARGV[1], 'started_at', started_at, 'attempt', attempt)
    end
    if went_wrong ~= '' then
      redis.call('HSET', record, 'attempts', went_wrong)
    end
    redis.call('EXPIRE', record, lifetime_seconds)
  end
end
