-- Prepended to every script that notes, looks for or delivers webhooks: where they are, and what several scripts do.
--
-- awaiting  sorted set: "<tenant, escaped> <url> <job id>" of each job whose end is to be told, by its number
-- due       sorted set: events of ended jobs, by the moment of their next attempt; while one is made, by the moment
--           when its lease ends
-- dead      sorted set: events that were given up, by the moment when
-- places    hash: noted is the last number, swept the one that the sweep has come to, swept_at when that was, lap how
--           often it has been round
-- secrets   hash: tenant, escaped, to a line for each secret: "<secret> <made at> <signs until, or ->"
-- event     hash of each: job_id, tenant, url, model, attempts, attempts_before (its last replay), claimed_until, error,
--           body (what to tell when the result is gone)

local AWAITING, DUE, DEAD = 'fleet:webhooks:awaiting', 'fleet:webhooks:due', 'fleet:webhooks:dead'
local PLACES, SECRETS = 'fleet:webhooks:places', 'fleet:webhooks:secrets'
local ENDED = {SUCCESS = true, FAILURE = true, REVOKED = true}

local function event_key(event)
  return 'fleet:webhook:' .. event
end

local function event_named(job_id, number)
  return string.format('msg_%s_%d', job_id, tonumber(number))
end

local function note(job_id, webhook)
  return table.concat({webhook.tenant, webhook.url, job_id}, ' ')
end

-- One job has one note; a job that is queued again is told of again, under another number.
local function note_webhook(job_id, webhook)
  local number = redis.call('HINCRBY', PLACES, 'noted', 1)
  return redis.call('ZADD', AWAITING, number, note(job_id, webhook))
end

local function forget_note(job_id, webhook)
  redis.call('ZREM', AWAITING, note(job_id, webhook))
end

-- Tenant, URL and job id.
local function read_note(member)
  return string.match(member, '^(%S*) (%S+) (.+)$')
end

-- Whether a result is an end, by its first bytes; nothing but a final state is one while the job is known.
local function is_end(head)
  return ENDED[string.match(head, '"status": ?"(%u+)"') or ''] or false
end

local function webhook_seconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Why a job with this webhook is not to be queued; nil when it is.
local function webhook_objection(webhook)
  if redis.call('HEXISTS', SECRETS, webhook.tenant) == 0 then
    return {'no_webhook_secret'}
  end
  local depth = redis.call('ZCARD', AWAITING) + redis.call('ZCARD', DUE)
  if depth >= webhook.most_pending then
    return {'outbox_full', webhook.most_pending, depth}
  end
end
