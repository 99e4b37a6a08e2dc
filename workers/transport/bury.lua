-- A message that names no job goes to the dead letters.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 dead letters  5 their index
-- ARGV  1 tag  2 dead letter id  3 dead letter (JSON)
-- Reply 1, or 0 when the lease was lost
if not settle(KEYS[1], KEYS[2], KEYS[3], ARGV[1]) then
  return 0
end
bury(KEYS[4], KEYS[5], model_of(KEYS[1]), ARGV[2], ARGV[3])
return 1
