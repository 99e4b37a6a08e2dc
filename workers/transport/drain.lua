-- What to take next: lanes by their urgency and their turns; in a lane near deadlines, then prompts whose prefix the
-- consumer has run lately, then tenants by their share; each in its order. No step looks at more than a few jobs,
-- however many wait.
--
-- options  lane_shares, lane_patience (by index), deadline_horizon, prefix_window (seconds), lead_tokens,
--          bytes_per_token, output_tokens, room_tokens (-1: endless), block_tokens, recent ("<tenant>|<prefix>"),
--          skips_urgent (the consumer takes nothing of the most urgent lane), max_message_bytes

local function waits(queue, index)
  return queue.plain[index] + queue.flows[index] > 0
end

local function open_queue(model, steps, lanes, options, has_no_flows)
  local queue = {model = model, steps = steps, lanes = lanes, options = options, plain = {}, flows = {}, turns = {},
    tenants = {}, blocked = {}, at_limit = {}, lanes_waiting = 0}
  for index, step in ipairs(steps) do
    queue.plain[index] = redis.call('LLEN', lanes[index])
    queue.flows[index] = has_no_flows and 0 or redis.call('LLEN', flow_lane(step, model))
    if waits(queue, index) then
      queue.lanes_waiting = queue.lanes_waiting + 1
    end
  end
  queue.turns_key = 'fleet:turns:' .. model
  if queue.lanes_waiting > 1 then
    for index, stored in ipairs(redis.call('HMGET', queue.turns_key, unpack(steps))) do
      if stored and waits(queue, index) then
        local credit, since = string.match(stored, '^(%S+) (%S+)$')
        queue.turns[index] = {credit = tonumber(credit), since = tonumber(since)}
      end
    end
  end
  return queue
end

-- Turns are for lanes that wait beside each other; there is nothing to remember otherwise.
local function close_queue(queue)
  if queue.lanes_waiting < 2 then
    return
  end
  local stored = {}
  for index, turn in pairs(queue.turns) do
    if waits(queue, index) then
      stored[#stored + 1] = queue.steps[index]
      stored[#stored + 1] = string.format('%.9f %.6f', turn.credit, turn.since)
    end
  end
  redis.call('DEL', queue.turns_key)
  if #stored > 2 then
    redis.call('HSET', queue.turns_key, unpack(stored))
  end
end

local function next_lane(queue, now)
  local urgent
  for index = 1, #queue.steps do
    if waits(queue, index) and not queue.blocked[index] then
      urgent = urgent or index
      queue.turns[index] = queue.turns[index] or {credit = 0, since = now}
    end
  end
  for index = #queue.steps, (urgent or #queue.steps) + 1, -1 do
    local turn = not queue.blocked[index] and waits(queue, index) and queue.turns[index]
    if turn and (turn.credit >= 1 or now - turn.since >= queue.options.lane_patience[index]) then
      return index
    end
  end
  return urgent
end

local function served(queue, index, now)
  for lower = index + 1, #queue.steps do
    local turn = queue.turns[lower]
    if turn then
      turn.credit = math.min(turn.credit + queue.options.lane_shares[lower], 2)
    end
  end
  local turn = queue.turns[index]
  turn.credit, turn.since = math.max(turn.credit - 1, 0), now
end

local function terms_of(queue, tenant)
  local terms = queue.tenants[tenant]
  if not terms then
    local weight, most_running = tenant_terms(tenant)
    terms = {weight = weight, most_running = most_running}
    queue.tenants[tenant] = terms
  end
  return terms
end

local function is_at_limit(queue, tenant)
  local most = tenant ~= '' and terms_of(queue, tenant).most_running
  return most and tonumber(redis.call('HGET', 'fleet:running:' .. queue.model, tenant) or 0) >= most
end

local ENDS = 16384

-- What is delivered in place of a message that is too large to be: so that whoever waits for its job is answered. The
-- message itself is gone; nothing of it but its two ends is looked at. Its id is where every sender's envelope has it, and
-- no text of a caller can look like it, since quotes in texts are escaped.
local function bounded(options, message)
  if #message <= options.max_message_bytes then
    return message
  end
  local pattern = '"correlation_id": ?"([^"\\]+)"'
  local id = string.match(string.sub(message, -ENDS), pattern) or string.match(string.sub(message, 1, ENDS), pattern)
  return cjson.encode({
    body = '[[],{},{}]',
    ['content-type'] = 'application/json',
    ['content-encoding'] = 'utf-8',
    headers = {
      task = 'fleet.generate', id = id, root_id = id, lang = 'py', argsrepr = '(too large)', kwargsrepr = '{}',
      fleet = {refused_bytes = #message}
    },
    properties = {correlation_id = id, delivery_mode = 2, delivery_info = {exchange = '', routing_key = ''}}
  })
end

local function estimate_tokens(options, at, message)
  if #message > options.max_message_bytes then
    return 0
  end
  local prompt_tokens, output
  if at and string.sub(at.prompt, 1, 1) == 't' then
    prompt_tokens, output = tonumber(string.sub(at.prompt, 2)), tonumber(at.output)
  elseif at then
    prompt_tokens, output = tonumber(at.prompt) / options.bytes_per_token, tonumber(at.output)
  else
    -- What is around the prompt in a message is less than this.
    prompt_tokens = math.max(1, #message - 1000) / options.bytes_per_token
    output = options.room_tokens >= 0 and tonumber(string.match(message, 'max_tokens\\?": ?(%d+)'))
  end
  return math.ceil(prompt_tokens + math.min(output or options.output_tokens, options.output_tokens))
end

-- What a job takes of the KV cache, which is given out in blocks.
local function memory_of(options, tokens)
  return math.ceil(tokens / options.block_tokens) * options.block_tokens
end

local function fits(queue, tokens)
  local room_tokens = queue.options.room_tokens
  tokens = memory_of(queue.options, tokens)
  if room_tokens >= 0 and tokens > room_tokens and not queue.holds_nothing then
    queue.is_full = true
    return false
  end
  if room_tokens >= 0 then
    queue.options.room_tokens = math.max(0, room_tokens - tokens)
  end
  queue.holds_nothing = false
  return true
end

local function take_plain(queue, index)
  local lane = queue.lanes[index]
  local tokens
  if queue.options.room_tokens >= 0 then
    tokens = estimate_tokens(queue.options, nil, redis.call('LINDEX', lane, -1))
    if not fits(queue, tokens) then
      return nil
    end
  end
  local message = redis.call('RPOP', lane)
  queue.plain[index] = queue.plain[index] - 1
  return {place = queue.steps[index], message = message,
    tokens = tokens or estimate_tokens(queue.options, nil, message)}
end

local function charge(queue, index, tenant, tokens)
  local step, model = queue.steps[index], queue.model
  local shares = flow_key('shares', step, model)
  local waits_on = head_of(step, model, tenant) or (tenant == '' and queue.plain[index] > 0)
  local cost = tokens / terms_of(queue, tenant).weight
  if waits_on then
    redis.call('ZINCRBY', shares, string.format('%.3f', cost), tenant)
  else
    local score = tonumber(redis.call('ZSCORE', shares, tenant) or 0)
    local first = redis.call('ZRANGE', shares, 0, 0, 'WITHSCORES')
    redis.call('ZREM', shares, tenant)
    local spent = flow_key('spent', step, model)
    redis.call('ZADD', spent, string.format('%.3f', score + cost), tenant)
    redis.call('ZREMRANGEBYSCORE', spent, '-inf', '(' .. (first[2] or '0'))
  end
  if queue.flows[index] == 0 then
    redis.call('DEL', shares, flow_key('spent', step, model))
  end
end

-- Where a job of a flow waits, and its message.
local function read_waiting(model, number)
  local place, message = split(redis.call('HGET', 'fleet:waiting:' .. model, number))
  return parse_place(place), message
end

local function take_flow(queue, index, number)
  local step, model = queue.steps[index], queue.model
  local at, message = read_waiting(model, number)
  local tokens = estimate_tokens(queue.options, at, message)
  if not fits(queue, tokens) then
    return nil
  end
  redis.call('HDEL', 'fleet:waiting:' .. model, number)
  redis.call('ZREM', flow_key('order', step, model), at.tenant .. '|' .. number)
  if at.deadline ~= '' then
    redis.call('ZREM', flow_key('deadlines', step, model), number)
  end
  if at.prefix ~= '' then
    redis.call('ZREM', flow_key('prefixes', step, model), at.tenant .. '|' .. at.prefix .. '|' .. number)
  end
  redis.call('RPOP', flow_lane(step, model))
  queue.flows[index] = queue.flows[index] - 1
  return {place = at.text, message = message, tokens = tokens, tenant = at.tenant}
end

-- Whether a tenant may be served out of turn: it is not too far ahead of the one whose turn it is.
local function may_overtake(queue, index, tenant)
  local shares = flow_key('shares', queue.steps[index], queue.model)
  local own = redis.call('ZSCORE', shares, tenant)
  local first = redis.call('ZRANGE', shares, 0, 0, 'WITHSCORES')
  return own and own - first[2] <= queue.options.lead_tokens and not is_at_limit(queue, tenant)
end

local function near_deadline(queue, index, now)
  local latest = now + queue.options.deadline_horizon
  local deadlines = flow_key('deadlines', queue.steps[index], queue.model)
  local number = redis.call('ZRANGEBYSCORE', deadlines, '-inf', string.format('%.6f', latest), 'LIMIT', 0, 1)[1]
  if number then
    local at = read_waiting(queue.model, number)
    return may_overtake(queue, index, at.tenant) and number
  end
end

-- A job of a prefix that this consumer ran lately, unless one waits that came so much earlier that it goes first.
local function of_recent_prefix(queue, index)
  local step, options = queue.steps[index], queue.options
  for _, recent in ipairs(options.recent) do
    local member = first_of(flow_key('prefixes', step, queue.model), recent .. '|')
    if member then
      local tenant, number = string.match(recent, '^[^|]*'), string.sub(member, #recent + 2)
      local head = head_of(step, queue.model, tenant)
      local lead_seconds = (tonumber(string.sub(number, 1, 16)) - tonumber(string.sub(head, 1, 16))) / 1000000
      if lead_seconds <= options.prefix_window and may_overtake(queue, index, tenant) then
        return number
      end
    end
  end
end

-- Of the tenant without a name: its flow and the lane's list hold jobs in the order of their arrival.
local function is_list_first(queue, index, head)
  if queue.plain[index] == 0 or not head then
    return not head
  end
  local message = redis.call('LINDEX', queue.lanes[index], -1)
  local enqueued_at = tonumber(string.match(string.sub(message, -64), '"enqueued_at": ?([%d.]+)'))
  return not enqueued_at or enqueued_at * 1000000 <= tonumber(string.sub(head, 1, 16))
end

local function of_tenant_whose_turn_it_is(queue, index)
  local step, model = queue.steps[index], queue.model
  local shares = flow_key('shares', step, model)
  if queue.plain[index] > 0 and not redis.call('ZSCORE', shares, '') then
    enroll(step, model, '')
  end
  while true do
    local first = redis.call('ZRANGE', shares, 0, 0, 'WITHSCORES')
    local tenant = first[1]
    if not tenant then
      return nil
    end
    if is_at_limit(queue, tenant) then
      redis.call('ZREM', shares, tenant)
      redis.call('ZADD', flow_key('spent', step, model), first[2], tenant)
      redis.call('SADD', 'fleet:held:' .. model, step .. '|' .. tenant)
    else
      local head = head_of(step, model, tenant)
      if head or (tenant == '' and queue.plain[index] > 0) then
        return tenant, head
      end
      redis.call('ZREM', shares, tenant)
    end
  end
end

-- One job of a lane, or nothing: it does not fit, or everybody who waits is at the limit.
local function take_from(queue, index, now)
  if queue.flows[index] == 0 then
    return take_plain(queue, index)
  end
  local number = near_deadline(queue, index, now) or of_recent_prefix(queue, index)
  if number then
    return take_flow(queue, index, number)
  end
  local tenant, head = of_tenant_whose_turn_it_is(queue, index)
  if not tenant then
    queue.blocked[index], queue.at_limit[index] = true, true
    return nil
  end
  if tenant == '' and is_list_first(queue, index, head) then
    local taken = take_plain(queue, index)
    if taken then
      taken.tenant = ''
    end
    return taken
  end
  return take_flow(queue, index, head)
end

-- An operator may have changed a limit since somebody was held by it.
local function look_at_one_held(queue)
  local held = redis.call('SRANDMEMBER', 'fleet:held:' .. queue.model)
  if held then
    local step, tenant = string.match(held, '^(%d+)|(.*)$')
    if not is_at_limit(queue, tenant) then
      redis.call('SREM', 'fleet:held:' .. queue.model, held)
      enroll(step, queue.model, tenant)
    end
  end
end
