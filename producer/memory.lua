-- Prepended to the script that enqueues: whether the server has memory for more jobs. From a share of its maxmemory on it
-- has not: the rest is for those whose jobs were taken, and for their leases, streams and results.
--
-- fleet:memory  string: "<bytes in use> <bytes from which on no job is taken; 0: endless>", as of a moment ago and with
--               what was queued since. The server is asked at most once in that time, by all producers together.
local MEMORY = 'fleet:memory'
local JOBS_SHARE, MOMENT_MILLISECONDS = 0.9, 200
local JOB_BYTES = 1400  -- of a job beside its message: record, lists and what surrounds them (docs/scale.md)

-- (pcall: an ACL may forbid the question; then the server refuses what it has no memory for, and nobody else is told.)
local function ask_memory()
  local said = redis.pcall('INFO', 'memory')
  said = type(said) == 'string' and said or ''
  local used, most = string.match(said, '\nused_memory:(%d+)'), string.match(said, '\nmaxmemory:(%d+)')
  if not used or not most then
    return {used = 0, most = 0}
  end
  local memory = {used = tonumber(used), most = math.ceil(tonumber(most) * JOBS_SHARE)}
  redis.pcall('SET', MEMORY, string.format('%.0f %.0f', memory.used, memory.most), 'PX', MOMENT_MILLISECONDS)
  return memory
end

local function read_memory()
  local word = redis.pcall('GET', MEMORY)
  if type(word) ~= 'string' then
    return ask_memory()
  end
  local used, most = string.match(word, '^(%d+) (%d+)$')
  return {used = tonumber(used), most = tonumber(most)}
end

local function has_memory(memory)
  return memory.most == 0 or memory.used < memory.most
end

local function count_message(memory, message)
  memory.used, memory.has_grown = memory.used + #message + JOB_BYTES, true
end

local function write_memory(memory)
  if memory.most > 0 and memory.has_grown then
    redis.pcall('SET', MEMORY, string.format('%.0f %.0f', memory.used, memory.most), 'XX', 'KEEPTTL')
  end
end

-- Whether the server refused a write for want of memory. It refuses a script's first write only, so nothing was written.
local function is_out_of_memory(refused)
  return type(refused) == 'table' and refused.err and string.find(refused.err, 'OOM ', 1, true) ~= nil
end
