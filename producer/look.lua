-- Which of these results are there. Most are not, as a rule: the reply costs by what was found.
--
-- ARGV  1 what names of results begin with   2 the ids of their jobs, a JSON array that is not empty
-- Reply place (1 is the first id) and value, place and value, ...
local names = cjson.decode(ARGV[2])
for place, id in ipairs(names) do
  names[place] = ARGV[1] .. id
end
local found = {}
for place, value in ipairs(redis.call('MGET', unpack(names))) do
  if value then
    found[#found + 1] = place
    found[#found + 1] = value
  end
end
return found
