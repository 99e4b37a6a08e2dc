-- Which of these results are there. Most are not, as a rule: the reply costs by what was found.
--
-- KEYS  names of results
-- Reply place (1 is the first key) and value, place and value, ...
local found = {}
for place, value in ipairs(redis.call('MGET', unpack(KEYS))) do
  if value then
    found[#found + 1] = place
    found[#found + 1] = value
  end
end
return found
