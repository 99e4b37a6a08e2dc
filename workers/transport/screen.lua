-- Which of these jobs need not be run?
--
-- KEYS  1 cancels  2.. one result key per job
-- ARGV  per job: its id
-- Reply per job: 'run', 'settled' (its result exists) or 'cancelled <submission token>', which may be the token of
--       another submission of the same id: so a result that exists comes first
local reply = {}
local any_cancels = redis.call('EXISTS', KEYS[1]) == 1
for job = 1, #ARGV do
  reply[job] = 'run'
  local token = any_cancels and redis.call('HGET', KEYS[1], ARGV[job])
  if is_terminal(redis.call('GETRANGE', KEYS[1 + job], 0, 63)) then
    reply[job] = 'settled'
  elseif token then
    reply[job] = 'cancelled ' .. token
  end
end
return reply
