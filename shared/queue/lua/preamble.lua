-- What the scripts share; Python puts it before each of them (shared/queue/scripts.py), behind
-- allowed(), ACTIVE and FINAL, and writes the patterns of keys in: key('job', id) becomes
-- key('job:%s', id). Redis runs all of this at each call: tables are made where they are used.
--
-- Fields of a job's hash (times in ms, absent = none):
--   id, owner, submission (JSON), body_sha256, sequence, priority, max_attempts, deadline_ms,
--   after (JSON: ids), state, reason, stop_requested, num_failures, progress (JSON),
--   result (JSON), created_at, updated_at, started_at, ended_at,
--   token         number of the newest attempt; 0 before the first
--   open          the same while that attempt has not ended
--   attempt:<n>   an attempt (JSON)
--   lease_owner   the dispatcher that holds the lease; its end is in `leases`
--   heartbeat_at  of the newest attempt
--   interrupt     the attempt that got SIGTERM
--   done_id       id of the `done` event, while the job is in a final state
--   traceparent   the trace of the request that made it
--   request       the newest verb that came with an Idempotency-Key, and that key

local PREFIX = KEYS[1]
local function key(pattern, id)
  return PREFIX .. (id and string.format(pattern, id) or pattern)
end

-- Redis's time in ms. It never goes back: where a server with an older clock took over, it stands
-- still until that clock has caught up.
local time = redis.call('TIME')
local now = math.max(
  time[1] * 1000 + math.floor(time[2] / 1000), tonumber(redis.call('GET', key('clock'))) or 0
)

-- Ends the script with an error of ours; `code` is one of shared/errors.py. Nothing may have been
-- written before: Redis does not roll back.
local refusal
local function refuse(code, message)
  refusal = code .. ' ' .. message
  error(refusal, 0)
end

-- All writes go through here; the first moves the clock. A full Redis refuses a script whose first
-- write needs memory, and only its first: so scripts that end or renew work begin with one that
-- needs none. Scripts that bring new work (GROWS) are refused; no lease hangs on their time.
local GROWS = false
local dirty = false
local function write(...)
  if not dirty and not GROWS then
    dirty = true
    redis.call('DEL', key('clock'))
    redis.call('SET', key('clock'), now)
  end
  return redis.call(...)
end

-- The job's fields that scripts decide by, or nil.
local function find(id)
  local fields = {
    'id', 'state', 'reason', 'stop_requested', 'sequence', 'priority', 'max_attempts',
    'num_failures', 'deadline_ms', 'after', 'token', 'open', 'lease_owner', 'heartbeat_at',
    'interrupt', 'result', 'started_at', 'request',
  }
  local values = redis.call('HMGET', key('job', id), unpack(fields))
  if not values[1] then return nil end
  local job = {}
  for i, field in ipairs(fields) do job[field] = values[i] or nil end
  return job
end

local function get(id)
  return find(id) or refuse('NOT_FOUND', 'there is no job ' .. id)
end

-- The whole job as Python reads it: field, value, field, value ...
local function snapshot(id)
  return redis.call('HGETALL', key('job', id))
end

-- Sets fields here and in Redis; false removes one.
local function set(job, changes)
  local sets, removes = {}, {}
  for field, value in pairs(changes) do
    if value == false then
      removes[#removes + 1] = field
      job[field] = nil
    else
      -- Lua itself would round numbers to 14 digits.
      if type(value) == 'number' then value = string.format('%.0f', value) end
      sets[#sets + 1] = field
      sets[#sets + 1] = value
      job[field] = value
    end
  end
  if #sets > 0 then write('HSET', key('job', job.id), unpack(sets)) end
  if #removes > 0 then write('HDEL', key('job', job.id), unpack(removes)) end
end

-- Events

local function emit(job, type, data)
  return write('XADD', key('events', job.id), '*', 'type', type, 'data', data)
end

local function emit_state(job)
  local token = tonumber(job.token)
  emit(job, 'state', cjson.encode({
    state = job.state,
    reason = job.reason or cjson.null,
    attempt = token > 0 and token or cjson.null,
    stop_requested = job.stop_requested,
  }))
end

-- Something became leasable, a stop was asked, or a place became free: a dispatcher should look.
local function wake()
  write('XADD', key('wake'), 'MAXLEN', '~', 1, '*', 'at', now)
end

-- Attempts

local function attempt(job, number)
  local text = redis.call('HGET', key('job', job.id), 'attempt:' .. number)
  return text and cjson.decode(text)
end

local function put_attempt(changes, number, record)
  changes['attempt:' .. number] = cjson.encode(record)
end

-- Refuses every attempt but the one that is under way: the fence.
local function check_token(job, token)
  if job.open == token then return end
  refuse('STALE_TOKEN', string.format(
    'attempt %s of job %s is not under way (state %s, newest attempt %s): it must stop',
    token, job.id, job.state, job.token
  ))
end

-- Refuses every dispatcher but the one that holds the job's lease.
local function check_owner(job, owner)
  if job.lease_owner == owner then return end
  refuse('STALE_TOKEN', string.format(
    'job %s (state %s) is not leased by %s: let go of it', job.id, job.state, owner
  ))
end

-- Queued jobs

-- Order in `ready`: higher priority first, then the older job. Exact in a double: (200 * 2^45) +
-- 2^45 is below 2^53.
local function rank(job)
  return (100 - job.priority) * 2 ^ 45 + job.sequence
end

-- What holds a job up, and its state: the first of its `after` that has failed or was canceled,
-- else the first that has not ended; nil if all have succeeded.
local function blocker(job)
  if job.after == '[]' then return end
  local blocking, blocking_state
  for _, id in ipairs(cjson.decode(job.after)) do
    local state = redis.call('HGET', key('job', id), 'state')
    if FINAL[state] and state ~= 'succeeded' then return id, state end
    if state ~= 'succeeded' and not blocking then blocking, blocking_state = id, state end
  end
  return blocking, blocking_state
end

-- Puts a queued job where it waits: for other jobs, for its time `due` (or nil), or for a
-- dispatcher.
local function place(job, due)
  if blocker(job) then
    write('ZADD', key('waiting'), job.sequence, job.id)
    for _, id in ipairs(cjson.decode(job.after)) do
      write('SADD', key('dependents', id), job.id)
    end
  elseif due then
    write('ZADD', key('delayed'), due, job.id)
  else
    write('ZADD', key('ready'), rank(job), job.id)
    wake()
  end
end

local function waits_for(id)
  return id and 'waits for job ' .. id
end

-- Transitions

local ended = {}

-- Moves a job along the table: its indexes, its fields, its events. `due` as in place().
local function move(job, state, changes, due)
  if not allowed(job.state, state) then
    error('no transition from ' .. job.state .. ' to ' .. state)
  end
  write('ZREM', key('state', job.state), job.id)
  if job.state == 'queued' then
    write('ZREM', key('ready'), job.id)
    write('ZREM', key('delayed'), job.id)
    write('ZREM', key('waiting'), job.id)
  elseif ACTIVE[job.state] and not ACTIVE[state] then
    write('ZREM', key('leases'), job.id)
    for _, field in ipairs({'open', 'lease_owner', 'stop_requested', 'interrupt'}) do
      changes[field] = false
    end
    wake()
  end
  changes.state, changes.updated_at = state, now
  changes.reason = state == 'queued' and waits_for(blocker(job)) or changes.reason or false
  set(job, changes)
  write('ZADD', key('state', state), job.sequence, job.id)
  if state == 'queued' then place(job, due) end
  emit_state(job)
  if FINAL[state] then
    write('ZREM', key('deadlines'), job.id)
    local data = '{"state":"' .. state .. '","result":' .. (job.result or 'null') .. '}'
    set(job, {ended_at = now, done_id = emit(job, 'done', data)})
    table.insert(ended, job)
  end
end

-- Cancels a job that waited for one which has failed or was canceled.
local function give_up(job, earlier_id, earlier_state)
  move(job, 'canceled', {
    reason = 'job ' .. earlier_id .. ', which it waited for, is ' .. earlier_state,
  })
end

local STOPPED = {cancel = 'canceled', pause = 'paused'}

-- Cancels or pauses: at once where nothing runs, else as a wish on the attempt.
local function stop(job, wish, reason)
  if not ACTIVE[job.state] then
    move(job, STOPPED[wish], {reason = reason})
  elseif job.stop_requested ~= wish then
    set(job, {stop_requested = wish, reason = reason, updated_at = now})
    emit_state(job)
    wake()
  end
end

-- Tells the jobs that wait for those which have just ended. A loop: chains may be long.
local function settle()
  while #ended > 0 do
    local earlier = table.remove(ended)
    local dependents = redis.call('SMEMBERS', key('dependents', earlier.id))
    if #dependents > 0 then write('DEL', key('dependents', earlier.id)) end
    for _, id in ipairs(dependents) do
      local job = find(id)
      if earlier.state ~= 'succeeded' then
        if job.state == 'queued' or job.state == 'paused' then
          give_up(job, earlier.id, earlier.state)
        end
      elseif redis.call('ZSCORE', key('waiting'), id) then
        write('ZREM', key('waiting'), id)
        place(job)
        set(job, {reason = waits_for(blocker(job)) or false, updated_at = now})
        emit_state(job)
      end
    end
  end
end

-- What a user asked of a job, once: a repeat of the newest `request` ('' = none) finds it done.
local function once(job, request, act)
  if request == '' or job.request ~= request then
    act()
    if request ~= '' then set(job, {request = request}) end
  end
  return snapshot(job.id)
end

local function run(main)
  local ok, answer = pcall(main)
  if not ok then
    if refusal then return redis.error_reply(refusal) end
    error(answer, 0)
  end
  settle()
  return answer
end
