-- Who is next in a conversation: every turn that comes stands in line with a ticket, which is good until its producer
-- has not looked for a while. Prepended to the scripts that need it.
--
-- A line is fleet:line:<tenant>:<id>, tickets by number of arrival, and fleet:tickets:<tenant>:<id>, ticket to the
-- moment in ms until which it is good. Times are the server's.
local function line_moment()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function leave_line(line, tickets, ticket)
  redis.call('ZREM', line, ticket)
  redis.call('HDEL', tickets, ticket)
end

local function is_good(tickets, ticket)
  return tonumber(redis.call('HGET', tickets, ticket) or 0) > line_moment()
end

-- The ticket of the turn that is next; nil when nobody waits. Those that nobody keeps any more are passed over.
local function first_in_line(line, tickets)
  while true do
    local first = redis.call('ZRANGE', line, 0, 0)[1]
    if not first or is_good(tickets, first) then
      return first
    end
    leave_line(line, tickets, first)
  end
end
