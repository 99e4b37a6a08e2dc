-- Give a tenant its first secret, or a new one beside which the old one signs for a while.
--
-- ARGV  1 tenant, escaped   2 secret   3 'create' or 'rotate'   4 how long the old one signs, in seconds
-- Reply 'made', 'exists' (there is one: rotate it) or 'none' (there is none: create it)
local tenant, secret, how, keep_seconds = unpack(ARGV, 1, 4)
local MOST_SECRETS = 5
local stored = redis.call('HGET', SECRETS, tenant)
local now = webhook_seconds()

if how == 'create' and stored then
  return 'exists'
end
if how == 'rotate' and not stored then
  return 'none'
end
local lines = {string.format('%s %.3f -', secret, now)}
for old, made_at, ends_at in string.gmatch(stored or '', '(%S+) (%S+) (%S+)') do
  local last = math.min(tonumber(ends_at) or math.huge, now + tonumber(keep_seconds))
  if last > now and #lines < MOST_SECRETS then
    lines[#lines + 1] = string.format('%s %s %.3f', old, made_at, last)
  end
end
redis.call('HSET', SECRETS, tenant, table.concat(lines, '\n'))
return 'made'
