-- Note how the last turn of a conversation ended, if that was not noted yet. Safe to send again, by anybody.
--
-- KEYS  1 fleet:conversation:<tenant>:<id>
-- ARGV  1 the turn's submission token   2 lifetime in seconds
--       3 its answer, JSON; empty: it has none, and is as if it had not been said
--       4 not empty: it is the only turn   5 tokens that later prompts may have; empty: as it is
--       6 tokens of all that was said, with the answer; empty: it has none
-- Reply 1, or 0 when somebody has done that before, has forgotten the conversation, or a later turn was noted
local conversation = KEYS[1]
local token, seconds, answer, is_only, limit, tokens = unpack(ARGV)

local version, last = unpack(redis.call('HMGET', conversation, 'version', 'last'))
if version ~= token then
  return 0
end
if answer == '' and is_only ~= '' then
  redis.call('DEL', conversation)
  return 1
end
if answer ~= '' then
  redis.call('HSET', conversation, last .. '.answer', answer, 'tokens', tokens)
else
  redis.call('HDEL', conversation, last)
end
if limit ~= '' then
  redis.call('HSET', conversation, 'limit', limit)
end
redis.call('HSET', conversation, 'version', token .. '.')
redis.call('EXPIRE', conversation, seconds)
return 1
