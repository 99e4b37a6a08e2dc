-- Give a model another name, or the name of an adapter, if it is free and the model known.
--
-- KEYS  1 fleet:models   2 the hash of such names: fleet:aliases or fleet:adapters   3 the other one of them
-- ARGV  1 the other name   2 the model   3 "1": also where it is another model's other name
-- Reply "ok", "is_model", "unknown_model", "taken" and the model whose it is, or "taken_otherwise" and the same
local models, names, others = KEYS[1], KEYS[2], KEYS[3]
local name, model, may_move = ARGV[1], ARGV[2], ARGV[3] == '1'
if redis.call('HEXISTS', models, name) == 1 then
  return {'is_model'}
end
if redis.call('HEXISTS', models, model) == 0 then
  return {'unknown_model'}
end
local earlier = redis.call('HGET', names, name)
if earlier and earlier ~= model and not may_move then
  return {'taken', earlier}
end
local otherwise = redis.call('HGET', others, name)
if otherwise then
  return {'taken_otherwise', otherwise}
end
redis.call('HDEL', names, '')  -- takes no memory, so that a server without any does not refuse the next
redis.call('HSET', names, name, model)
return {'ok'}
