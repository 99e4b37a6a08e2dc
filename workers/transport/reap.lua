-- Hand expired leases back. It runs in one piece, so there is no lock that a dead reaper could leave behind.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 suspects  5.. lanes
-- ARGV  1 most leases in one go  2 max deliveries  3 record lifetime in seconds  4.. lane steps
-- Reply tags of what was handed back
local leases, leased, redelivery, suspects = unpack(KEYS, 1, 4)
local limit, max_deliveries, lifetime_seconds = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = seconds_now()
local places = {redelivery = redelivery, suspects = suspects, model = model_of(leases),
  lanes = lanes_by_step(5, 4, #KEYS - 4)}
-- The last claimed first: what a later go finds was claimed before it, and belongs nearer to the consuming end. When a
-- lease ended says nothing about that: it tells who renewed last.
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now)
local numbers = {}
for _, tag in ipairs(expired) do
  numbers[tag] = claim_number(tag)
end
table.sort(expired, function(one, other) return numbers[one] > numbers[other] end)
while #expired > limit do
  table.remove(expired)
end
local reply = {}
for _, lease in ipairs(take_out(leases, leased, expired)) do
  count_death(places, lease, 'the lease expired: its worker was killed, hung or cut off', false, now, max_deliveries,
    lifetime_seconds)
  reply[#reply + 1] = lease.tag
end
if #reply > 0 then
  ring_all(places.model)
end
return reply
