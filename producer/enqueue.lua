-- Submit jobs, each whole or not at all, in their order. Safe to send again, whole or in part: a job id that is known
-- is not queued a second time.
--
-- KEYS  1 fleet:models   2 fleet:limits
-- ARGV  1 record lifetime in seconds   2 channel of the task-sent events
--       3 prefix of the job records' keys
--       4 JSON array of the routes (model and priority) that the jobs take, with what their messages have in common
--       5.. six values for each job, as unpacked below. The keys of a job are made here: only it knows how many.
-- A message is made from a template: a literal, a gap's name, a literal and so on. Only the server knows the time; and
-- nothing is ever looked for inside what a caller wrote.
-- Reply JSON {"now": the moment of enqueueing, "others": ..., "known_models": ...}. A job that is not among the others
--       was queued now. The others are arrays: place (1 is the first job), then one of
--         "queued", enqueued_at                          it was, by an earlier sending
--         "duplicate", job id, enqueued_at, token        its idempotency key names that job
--         "conflict", job id                             its idempotency key names a job that asked something else
--         "unknown_model"                                known_models has those that are known
--         "queue_full", limit, depth
--       A server that refuses a write is an error reply: jobs before the refused one are queued, later ones are not.
local models, limits = KEYS[1], KEYS[2]
local record_seconds, event_channel, record_prefix = ARGV[1], ARGV[2], ARGV[3]
local routes = cjson.decode(ARGV[4])
local FIRST, WIDTH = 5, 6
local MOST_TOKENS = 16

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
    queue = {doorbells = {}}
    queue.is_known = redis.call('HEXISTS', models, route.model) == 1
    queue.limit = tonumber(redis.call('HGET', limits, route.model) or nil)
    if queue.limit then
      queue.depth = 0
      for _, lane in ipairs(route.lanes) do
        queue.depth = queue.depth + redis.call('LLEN', lane)
      end
    end
    queues[route.model] = queue
  end
  return queue
end

-- Put one job into its lane, or into a flow of it when it has a tenant, a deadline or a prefix; an error reply of the
-- server when it refuses.
local function push_job(route, job, message)
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

-- Why the job is not to be queued, as in the reply; nil when it is.
local function objection(queue, job)
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
  if queue.limit and queue.depth >= queue.limit then
    return {'queue_full', queue.limit, queue.depth}
  end
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

local refusal
for first = FIRST, #ARGV, WIDTH do
  local route_number, id, token, size, body, options = unpack(ARGV, first, first + WIDTH - 1)
  local route = routes[tonumber(route_number)]
  local job = options ~= '' and cjson.decode(options) or {}
  job.id, job.token, job.priority = id, token, route.priority
  job.tenant = job.tenant or ''
  local queue = queue_of(route)
  local found = objection(queue, job)
  if found then
    table.insert(found, 1, (first - FIRST) / WIDTH + 1)
    reply.others = reply.others or {}
    table.insert(reply.others, found)
  else
    local values = {id = id, token = token, size = size, body = body, now = now, expires = job.expires or 'null'}
    -- The push comes first: it is the one write that a foreign key of the wrong type, or a replica, could refuse.
    local pushed = push_job(route, job, fill(route.message, values))
    if type(pushed) == 'table' and pushed.err then
      refusal = pushed
      break
    end
    queue.doorbells[route.doorbell] = (queue.doorbells[route.doorbell] or 0) + 1
    queue.depth = queue.depth and queue.depth + 1
    write_record(route, job)
    announce(route, job, values)
  end
end

for _, queue in pairs(queues) do
  for doorbell, pushed in pairs(queue.doorbells) do
    ring(doorbell, pushed)
  end
end
return refusal or cjson.encode(reply)
