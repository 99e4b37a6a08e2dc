-- Submit jobs, each whole or not at all, in their order. Safe to send again, whole or in part: a job id that is known
-- is not queued a second time. Prepended: flows.lua, webhooks.lua, line.lua, memory.lua.
--
-- KEYS  none: a script may be given only keys that its user may write, and a producer's user reads some of these alone
-- ARGV  1 record lifetime in seconds   2 channel of the task-sent events
--       3 prefix of the job records' keys
--       4 the most jobs in a list of jobs (0: they are not listed)
--       5 JSON array of the routes (model and priority) that the jobs take, with what their messages have in common
--       6.. six values for each job, as unpacked below. The keys of a job are made here: only it knows how many.
-- A message is made from a template: a literal, a gap's name, a literal and so on. Only the server knows the time; and
-- nothing is ever looked for inside what a caller wrote.
-- Reply JSON {"now": the moment of enqueueing, "others": ..., "known_models": ...}. A job that is not among the others
--       was queued now. The others are arrays: place (1 is the first job), then one of
--         "queued", enqueued_at                          it was, by an earlier sending
--         "duplicate", job id, enqueued_at, token        its idempotency key names that job
--         "conflict", job id                             its idempotency key names a job that asked something else
--         "alias", model                                 it is to be sent again under the model's own name
--         "adapter", model                               the same, with the name that it has as the adapter's
--         "turn_taken"                                   its conversation is not as it was when the job was made, or
--                                                        another turn is before it in the line (line.lua)
--         "unknown_model"                                known_models has those that are known
--         "queue_full", limit, depth                     as many jobs of the model wait as may
--         "redis_full", limit, used                      the server has so many bytes in use; 0, 0: nobody may know
--         "tenant_full", limit, depth, sharers           as many of the tenant; so many tenants wait in the lane
--         "no_webhook_secret"                            its tenant has none to sign its webhook with
--         "outbox_full", limit, depth                    so many webhooks wait already
--       Of a model whose queue is full, "drained" has what finish.lua counts (drain_rate.py), by the model's name.
--       A server that refuses a write is an error reply: jobs before the refused one are queued, later ones are not.
local models, limits, aliases, adapters = 'fleet:models', 'fleet:limits', 'fleet:aliases', 'fleet:adapters'
local record_seconds, event_channel, record_prefix = ARGV[1], ARGV[2], ARGV[3]
local most_listed = tonumber(ARGV[4])
local routes = cjson.decode(ARGV[5])
local FIRST, WIDTH = 6, 6
local MOST_TOKENS = 16
local MOST_WAITING = 2000000  -- as in producer/registry.py: of a model that has no limit of its own

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local reply, queues, arrivals = {now = now}, {}, 0

local function fill(template, values)
  local parts = {}
  for at = 1, #template, 2 do
    parts[at] = template[at]
    parts[at + 1] = values[template[at + 1]]
  end
  return table.concat(parts)
end

-- What is known of a model's queue: asked once, then counted here.
local function queue_of(route)
  local queue = queues[route.model]
  if not queue then
    queue = {doorbells = {}, tenants = {}}
    queue.is_known = redis.call('HEXISTS', models, route.model) == 1
    queue.alias_of = not queue.is_known and redis.call('HGET', aliases, route.model)
    queue.adapter_of = not queue.is_known and not queue.alias_of and redis.call('HGET', adapters, route.model)
    queue.limit = tonumber(redis.call('HGET', limits, route.model) or MOST_WAITING)
    if queue.limit then  -- ('none' is no number)
      queue.depth = 0
      for _, lane in ipairs(route.lanes) do
        local length = redis.pcall('LLEN', lane)  -- of a foreign key of the wrong type: the push is refused
        queue.depth = queue.depth + (tonumber(length) or 0)
      end
    end
    queues[route.model] = queue
  end
  return queue
end

-- The same of a tenant that has a limit of jobs that wait; nil for one that has none.
local function share_of(queue, route, job)
  local tenant = job.flow and job.flow.tenant or ''
  if tenant == '' then
    return nil
  end
  local share = queue.tenants[tenant]
  if share == nil then
    local _, _, limit = tenant_terms(tenant)
    share = limit and {limit = limit, depth = 0} or false
    for _, step in ipairs(limit and {'0', '3', '6', '9'} or {}) do
      share.depth = share.depth + count_waiting(step, route.model, tenant)
    end
    queue.tenants[tenant] = share
  end
  return share or nil
end

-- Why there is no room for the job; nil when there is.
local memory
local function fullness(queue, route, job)
  memory = memory or read_memory()
  if not has_memory(memory) then
    return {'redis_full', memory.most, memory.used}
  end
  local found
  local share = share_of(queue, route, job)
  if queue.limit and queue.depth >= queue.limit then
    found = {'queue_full', queue.limit, queue.depth}
  elseif share and share.depth >= share.limit then
    local sharers = redis.call('ZCARD', flow_key('shares', route.step, route.model))
    found = {'tenant_full', share.limit, share.depth, math.max(1, sharers)}
  end
  if found then
    reply.drained = reply.drained or {}
    -- (pcall: what says how long to wait must not cost the answer.)
    local ring = reply.drained[route.model] or redis.pcall('HVALS', 'fleet:drained:' .. route.model)
    reply.drained[route.model] = ring.err and {} or ring
  end
  return found
end

local function count_queued(queue, route, job)
  queue.doorbells[route.doorbell] = (queue.doorbells[route.doorbell] or 0) + 1
  queue.depth = queue.depth and queue.depth + 1
  local share = share_of(queue, route, job)
  if share then
    share.depth = share.depth + 1
  end
end

-- Put one job into its lane, or into a flow of it when it has a tenant, a deadline or a prefix; an error reply of the
-- server when it refuses.
local function push_message(route, job, message)
  local flow = job.flow
  if not flow then
    return redis.pcall('LPUSH', route.lane, message)
  end
  arrivals = arrivals + 1
  local number = arrival_number(route.model, time, arrivals)
  local place = {route.step, flow.tenant, number, flow.prompt, flow.output, flow.deadline, flow.prefix}
  local is_placed, refused = pcall(place_job, route.model, parse_place(table.concat(place, '|')), message)
  return is_placed or (type(refused) == 'table' and refused or {err = tostring(refused)})
end

-- The same, with a note of its webhook: neither without the other.
local function push_job(route, job, message)
  if not job.webhook then
    return push_message(route, job, message)
  end
  local is_noted, refused = pcall(note_webhook, job.id, job.webhook)
  if not is_noted then
    return type(refused) == 'table' and refused or {err = tostring(refused)}
  end
  local pushed = push_message(route, job, message)
  if type(pushed) == 'table' and pushed.err then
    forget_note(job.id, job.webhook)
  end
  return pushed
end

-- One token wakes one worker, which rings on when it leaves something behind; a few are enough for all of them.
-- (pcall: jobs that are queued stay queued when nobody can be woken, and workers look now and then.)
local function ring(doorbell, pushed)
  local waiting = redis.pcall('LLEN', doorbell)
  local tokens = type(waiting) == 'number' and math.min(pushed, MOST_TOKENS - waiting) or 0
  if tokens > 0 then
    local some = {}
    for token = 1, tokens do
      some[token] = '1'
    end
    redis.pcall('LPUSH', doorbell, unpack(some))
    redis.pcall('EXPIRE', doorbell, 3600)
  end
end

-- The worker that answered the turn before has the conversation in its engine's prefix cache: while it has room, by its
-- last word, it alone is woken. Whoever else looks may take the job too, and within a second everybody looks.
local function wakes_preferred(route, job)
  local worker = job.turn and job.turn.worker
  local until_when = worker and worker ~= '' and redis.call('ZSCORE', 'fleet:workers', worker)
  if not until_when or tonumber(until_when) <= tonumber(now) then
    return false
  end
  local is_read, said = pcall(cjson.decode, redis.call('HGET', 'fleet:workers:said', worker) or '')
  if not is_read or not said.is_ready or said.model ~= route.model or (said.consumer or '') == '' then
    return false
  end
  local serves = said.lanes == 'all' or (said.lanes == 'interactive') == (tostring(route.step) == '0')
  if not serves or said.running_jobs * 4 >= said.slots * 3 then
    return false
  end
  local bell = 'fleet:doorbell-own:' .. said.consumer
  redis.call('LPUSH', bell, '1')
  redis.call('EXPIRE', bell, 60)
  return true
end

local has_listeners = true

-- Celery's task-sent event. Whether anybody listens can not change while this script runs.
-- (pcall: a job that is queued stays queued when the monitors may not be told; an ACL can forbid the channel.)
local function announce(route, job, values)
  if has_listeners then
    values.escaped_expires = string.gsub(values.expires, '"', '\\"')
    local heard_by = redis.pcall('PUBLISH', event_channel, fill(route.event, values))
    has_listeners = type(heard_by) == 'number' and heard_by > 0
  end
end

-- Whether a turn is made of its conversation as it is now, and no other one stands in line before it.
local function is_next(turn)
  if (redis.call('HGET', turn.key, 'version') or '') ~= turn.after then
    return false
  end
  local first = first_in_line(turn.line, turn.tickets)
  return not first or first == turn.ticket
end

-- Why the job is not to be queued, as in the reply; nil when it is.
local function objection(queue, route, job)
  if queue.alias_of then
    -- Before all else: the job's record, its idempotency key and the digest are of the model's own name.
    return {'alias', queue.alias_of}
  elseif queue.adapter_of then
    return {'adapter', queue.adapter_of}
  end
  local record = record_prefix .. job.id
  if redis.call('EXISTS', record) == 1 then
    local token, enqueued_at = unpack(redis.call('HMGET', record, 'token', 'enqueued_at'))
    if token == job.token then
      return {'queued', enqueued_at}
    end
    return {'duplicate', job.id, enqueued_at, token}
  end
  if job.idempotency then
    local earlier_id, digest, enqueued_at =
      unpack(redis.call('HMGET', job.idempotency, 'job_id', 'body_digest', 'enqueued_at'))
    -- A record ends with its job's result: then the key is free, for it would name a job that nobody knows any more.
    local earlier_token = earlier_id and redis.call('HGET', record_prefix .. earlier_id, 'token')
    if earlier_token then
      return digest == job.digest and {'duplicate', earlier_id, enqueued_at, earlier_token} or {'conflict', earlier_id}
    end
  end
  if not queue.is_known then
    reply.known_models = reply.known_models or redis.call('HKEYS', models)
    return {'unknown_model'}
  end
  local full = fullness(queue, route, job)
  if full then
    return full
  end
  if job.turn and not is_next(job.turn) then
    return {'turn_taken'}
  end
  return job.webhook and webhook_objection(job.webhook)
end

-- The turn of a conversation that this job answers; producer/conversation_entries.py has the fields.
local function note_turn(job)
  local turn = job.turn
  if #turn.gone > 0 then
    redis.call('HDEL', turn.key, unpack(turn.gone))
  end
  if turn.system ~= '' then
    redis.call('HSET', turn.key, 'system', turn.system)
  end
  redis.call('HSET', turn.key, 'version', job.token, 'last', turn.number, 'job', job.id, turn.number, turn.entry)
  redis.call('EXPIRE', turn.key, turn.seconds)
  leave_line(turn.line, turn.tickets, turn.ticket)
end

local function write_record(route, job)
  local record = record_prefix .. job.id
  redis.call('HSET', record, 'token', job.token, 'model', route.model, 'tenant', job.tenant,
    'priority', route.priority, 'enqueued_at', now)
  redis.call('EXPIRE', record, record_seconds)
  if job.idempotency then
    redis.call('HSET', job.idempotency, 'job_id', job.id, 'body_digest', job.digest, 'enqueued_at', now)
    redis.call('EXPIRE', job.idempotency, record_seconds)
  end
end

-- For whoever asks which jobs a tenant has; lists are cut at the end, once for all jobs of this run.
-- (pcall: a job that is queued stays queued when it can not be listed.)
local listed = {}
local function list_job(job)
  local tenant = job.flow and job.flow.tenant or ''
  for _, list in ipairs({'fleet:jobs', 'fleet:jobs:' .. tenant}) do
    redis.pcall('ZADD', list, now, job.id)
    listed[list] = true
  end
end

-- All that follows from a job that is queued.
local function note_queued(queue, route, job, values)
  count_queued(queue, route, job)
  write_record(route, job)
  if most_listed > 0 then
    list_job(job)
  end
  if job.turn then
    note_turn(job)
    if wakes_preferred(route, job) then
      queue.doorbells[route.doorbell] = queue.doorbells[route.doorbell] - 1
    end
  end
  announce(route, job, values)
end

local refusal
for first = FIRST, #ARGV, WIDTH do
  local route_number, id, token, size, body, options = unpack(ARGV, first, first + WIDTH - 1)
  local route = routes[tonumber(route_number)]
  local job = options ~= '' and cjson.decode(options) or {}
  job.id, job.token, job.priority = id, token, route.priority
  job.tenant = job.tenant or ''
  local queue = queue_of(route)
  local found = objection(queue, route, job)
  if not found then
    local values = {id = id, token = token, size = size, body = body, now = now, expires = job.expires or 'null',
      trace = job.trace}
    -- The push comes first: it is the one write that a foreign key of the wrong type, a replica or a server without
    -- memory could refuse.
    local message = fill(route.message, values)
    local pushed = push_job(route, job, message)
    if is_out_of_memory(pushed) then
      found = {'redis_full', memory.most, memory.used}
    elseif type(pushed) == 'table' and pushed.err then
      refusal = pushed
      break
    else
      note_queued(queue, route, job, values)
      count_message(memory, message)
    end
  end
  if found then
    if job.turn and found[1] == 'duplicate' then
      leave_line(job.turn.line, job.turn.tickets, job.turn.ticket)
    end
    table.insert(found, 1, (first - FIRST) / WIDTH + 1)
    reply.others = reply.others or {}
    table.insert(reply.others, found)
  end
end

if memory then
  write_memory(memory)
end

for list in pairs(listed) do
  redis.pcall('ZREMRANGEBYRANK', list, 0, -1 - most_listed)
  redis.pcall('EXPIRE', list, record_seconds)
end

for _, queue in pairs(queues) do
  for doorbell, pushed in pairs(queue.doorbells) do
    ring(doorbell, pushed)
  end
end
return refusal or cjson.encode(reply)
