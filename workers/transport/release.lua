-- Give leases up without a result.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 suspects  5 delayed  6 isolation  7.. lanes
-- ARGV  1 how: 'hand_back' (nothing is counted), 'suspect' (the engine died under it), 'retry' or 'park' (for later)
--       2 max deliveries  3 record lifetime in seconds  4 delay in seconds  5 reason  6 consumer  7 lane count  8.. lane
--       steps, then tags
-- Reply the number of leases that were the holder's to give
local leases, leased, redelivery, suspects, delayed, isolation = unpack(KEYS, 1, 6)
local how, max_deliveries, lifetime_seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local delay_seconds, reason, consumer, lane_count = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])
local now = seconds_now()
local places = {redelivery = redelivery, suspects = suspects, model = model_of(leases),
  lanes = lanes_by_step(7, 8, lane_count)}
local tags = {}
for index = 8 + lane_count, #ARGV do
  tags[#tags + 1] = ARGV[index]
end

local taken = take_out(leases, leased, tags)
for _, lease in ipairs(taken) do
  if how == 'suspect' then
    count_death(places, lease, reason, true, now, max_deliveries, lifetime_seconds)
  elseif how == 'hand_back' then
    put_back(places, lease.place, lease.message, read_record(redelivery, lease.message), max_deliveries)
  else
    if how == 'retry' then
      local record = read_record(redelivery, lease.message)
      record.retries = record.retries + 1
      add_history(record, lease, how, reason, now)
      write_record(redelivery, lease.message, record, lifetime_seconds)
    end
    redis.call('ZADD', delayed, now + delay_seconds, lease.place .. '\n' .. lease.message)
  end
end
-- Whoever has given back all that it held runs no suspects any more: another may begin at once. Until then nobody else's
-- jobs may join those that it still runs.
if (how == 'hand_back' or how == 'suspect') and redis.call('GET', isolation) == consumer
  and not holds_any(leases, consumer) then
  redis.call('DEL', isolation)
end
if #taken > 0 and (how == 'hand_back' or how == 'suspect') then
  ring_all(places.model)
end
return #taken
