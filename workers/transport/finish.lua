-- The end of jobs: result, acknowledgement and lease check in one step. Safe to send again after a lost reply.
--
-- KEYS  1 leases  2 leased  3 redelivery  4 dead letters  5 their index  6 cancels  7.. one result key per job
-- ARGV  per job: tag, result (Celery's JSON), its lifetime in seconds (0: for ever), dead letter id, dead letter (JSON),
--       tokens that it took ('': not known)
-- Reply per job: 'stored', 'kept' (another attempt's result was there first) or 'fenced' (the lease was lost: nothing
--       was written)
local leases, leased, redelivery, dead, dead_index, cancels = unpack(KEYS, 1, 6)
local DRAIN_BUCKET_SECONDS, DRAIN_BUCKETS, DRAIN_EXPIRES_SECONDS = 10, 7, 120  -- as in producer/drain_rate.py

-- One more entry of the ring that producer/drain_rate.py reads: "<bucket> <jobs> <tokens>", by the bucket's place.
-- (pcall: a stranger's key of the wrong type must not cost a result.)
local function count_drained(model, jobs, tokens)
  local bucket = math.floor(seconds_now() / DRAIN_BUCKET_SECONDS)
  local ring, slot = 'fleet:drained:' .. model, bucket % DRAIN_BUCKETS
  local entry = redis.pcall('HGET', ring, slot)
  local number, jobs_before, tokens_before = string.match(type(entry) == 'string' and entry or '', '^(%d+) (%d+) (%d+)$')
  local is_begun = tonumber(number) == bucket
  if is_begun then
    jobs, tokens = jobs + jobs_before, tokens + tokens_before
  end
  redis.pcall('HSET', ring, slot, string.format('%.0f %.0f %.0f', bucket, jobs, tokens))
  if not is_begun then
    redis.pcall('EXPIRE', ring, DRAIN_EXPIRES_SECONDS)
  end
end

local function job_of(result_key)
  return string.sub(result_key, #'celery-task-meta-' + 1)
end

-- A job that was cancelled, perhaps while its answer was on the way, has its end: nobody need look for that any more.
local function forget_cancel(key)
  redis.pcall('HDEL', cancels, job_of(key))
end

-- For monitors, which see whether a job has a result and may not read it: a first one that is a success needs no note.
local function note_end(key, result, before, lifetime_seconds)
  local status = status_of(result) or ''
  if status == 'SUCCESS' and not before then
    return
  end
  if status == 'REVOKED' then
    forget_cancel(key)
  end
  local record = 'fleet:job:' .. job_of(key)
  redis.call('HSET', record, 'ended', status)
  if lifetime_seconds > 0 then
    redis.call('EXPIRE', record, lifetime_seconds)
  end
end

local reply = {}
local ended_jobs, ended_tokens = 0, 0

for job = 1, #KEYS - 6 do
  local key = KEYS[6 + job]
  local tag, result, lifetime_seconds, dead_id, letter, tokens = unpack(ARGV, job * 6 - 5, job * 6)
  local stored = redis.call('GET', key)
  if not settle(leases, leased, redelivery, tag, tonumber(tokens)) then
    reply[job] = stored == result and 'stored' or 'fenced'
  else
    ended_jobs, ended_tokens = ended_jobs + 1, ended_tokens + (tonumber(tokens) or 0)
    if stored and is_terminal(stored) then
      reply[job] = 'kept'
      forget_cancel(key)
    else
      if tonumber(lifetime_seconds) > 0 then
        redis.call('SET', key, result, 'EX', lifetime_seconds)
      else
        redis.call('SET', key, result)
      end
      redis.call('PUBLISH', key, result)
      note_end(key, result, stored, tonumber(lifetime_seconds))
      reply[job] = 'stored'
      if dead_id ~= '' then
        bury(dead, dead_index, model_of(leases), dead_id, letter)
      end
    end
  end
end
if ended_jobs > 0 then
  count_drained(model_of(leases), ended_jobs, ended_tokens)
end
return reply
