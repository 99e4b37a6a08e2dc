-- What streamed jobs have said since the last call: each entry only while its lease is held, so that no reader hears
-- two attempts at once. An entry that is sent again after a lost reply is there twice; readers tell that by itself.
--
-- KEYS  1 leased  2.. one stream per entry
-- ARGV  1 greatest length of a stream  2 its lifetime in seconds from the last entry, then per entry: tag, entry
for at = 1, #KEYS - 1 do
  local key, tag, entry = KEYS[at + 1], ARGV[at * 2 + 1], ARGV[at * 2 + 2]
  if redis.call('HEXISTS', KEYS[1], tag) == 1 then
    redis.call('XADD', key, 'MAXLEN', '~', ARGV[1], '*', 'd', entry)
    redis.call('EXPIRE', key, ARGV[2])
  end
end
