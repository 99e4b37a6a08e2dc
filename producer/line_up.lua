-- Stand in a conversation's line, or keep one's place in it, and hear what the conversation is. Prepended: line.lua.
-- Safe to send again.
--
-- KEYS  1 fleet:conversation:<tenant>:<id>   2 fleet:line:<tenant>:<id>   3 fleet:tickets:<tenant>:<id>
-- ARGV  1 ticket   2 ms that it is good for from now on   3 the most tickets of a line
--       4 version that the caller knows; of that one nothing is told   5 not empty: told at any place, not the first alone
-- Reply {tickets before this one, fields and values of the conversation where they are told}; {-1}: as many wait as may
local conversation, line, tickets = unpack(KEYS)
local ticket, good_ms, most, known, tells_all = unpack(ARGV)

local function make_room()
  for _, other in ipairs(redis.call('ZRANGE', line, 0, -1)) do
    if not is_good(tickets, other) then
      leave_line(line, tickets, other)
    end
  end
  return redis.call('ZCARD', line) < tonumber(most)
end

if not redis.call('ZSCORE', line, ticket) then
  if redis.call('ZCARD', line) >= tonumber(most) and not make_room() then
    return {-1}
  end
  local time = redis.call('TIME')
  local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2]
  -- (The clock may have been set back, and two come in one microsecond.)
  local number = math.max(time[1] * 1000000 + time[2], (tonumber(last) or 0) + 1)
  redis.call('ZADD', line, string.format('%.0f', number), ticket)
end
-- Before others are passed over: whoever looks again in time to be there has kept its place.
redis.call('HSET', tickets, ticket, string.format('%.0f', line_moment() + good_ms))
redis.call('PEXPIRE', line, good_ms)
redis.call('PEXPIRE', tickets, good_ms)
first_in_line(line, tickets)

local place = redis.call('ZRANK', line, ticket)
if (place == 0 or tells_all ~= '') and (redis.call('HGET', conversation, 'version') or '') ~= known then
  return {place, redis.call('HGETALL', conversation)}
end
return {place}
