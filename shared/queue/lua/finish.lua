-- An attempt has ended: starting or running -> where its outcome leads. Token 0 ends a lease that
-- has no attempt yet, by its owner.
local id, token, outcome, message, result = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local owner, jitter, base_ms, max_ms = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local job = get(id)

-- Say the same as before to a caller that missed the answer.
local past = attempt(job, token)
if past and past.outcome == outcome then return snapshot(id) end

local changes = {}
if token == '0' then
  check_owner(job, owner)
  if job.open then
    refuse('STALE_TOKEN', 'attempt ' .. job.open .. ' of job ' .. id .. ' is under way')
  end
else
  check_token(job, token)
  past.state, past.outcome, past.ended_at = 'ended', outcome, now
  past.error = message ~= '' and message or nil
  put_attempt(changes, token, past)
  local submission = cjson.decode(redis.call('HGET', key('job', id), 'submission'))
  write('HINCRBY', key('tally'), 'attempts ' .. submission.kind .. ' ' .. outcome, 1)
end
if result ~= '' then changes.result = result end

-- Choose the state; a wish that was not yet met is met now.
local why = message ~= '' and message or 'no error was given'
local failures = job.num_failures + (outcome == 'crashed' and 1 or 0)
changes.num_failures = failures
local state, due = outcome, nil
changes.reason = message ~= '' and message or nil
local unfinished = outcome == 'crashed' or outcome == 'interrupted'
if (unfinished or outcome == 'paused') and job.stop_requested then
  state, changes.reason = STOPPED[job.stop_requested], job.reason
elseif outcome == 'crashed' and failures >= tonumber(job.max_attempts) then
  state = 'failed'
  changes.reason = failures .. ' of ' .. job.max_attempts .. ' attempts crashed: ' .. why
elseif outcome == 'crashed' then
  -- Exponential backoff with full jitter: nobody knows how many others crashed for this reason.
  local delay_ms = math.floor(jitter * math.min(max_ms, base_ms * 2 ^ (failures - 1)))
  state, due = 'queued', now + delay_ms
  changes.reason = failures .. ' of ' .. job.max_attempts .. ' attempts crashed, next try in '
    .. string.format('%.1f', delay_ms / 1000) .. ' s: ' .. why
elseif outcome == 'interrupted' then
  state, changes.reason = 'queued', 'the last attempt was interrupted'
elseif outcome == 'canceled' or outcome == 'paused' then
  changes.reason = job.reason
end
move(job, state, changes, due)
return snapshot(id)
