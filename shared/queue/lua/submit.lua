-- A new job: nothing -> queued. Known ids are answered with the job that is there.
-- KEYS[2...]: the indexes that list it. Returns {whether it is new, time, the whole job}; the job
-- is left out where the caller knows it: new, queued, and waiting for nothing.
GROWS = true
local id, owner, body_sha256, submission = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local priority, max_attempts, deadline_ms, after = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local max_queued, traceparent = tonumber(ARGV[9]), ARGV[10]

local known = redis.call('HGET', key('job', id), 'body_sha256')
if known == body_sha256 then return {0, now, snapshot(id)} end
if known then
  refuse('IDEMPOTENCY_CLASH', 'job ' .. id .. ' was submitted with another body')
end
for _, other in ipairs(cjson.decode(after)) do
  if redis.call('EXISTS', key('job', other)) == 0 then
    refuse('INVALID_INPUT', 'there is no job ' .. other .. ' to wait for')
  end
end
if redis.call('ZCARD', key('state', 'queued')) >= max_queued then
  refuse('UNAVAILABLE', 'the queue is full (' .. max_queued .. ' jobs): try again later')
end

local job = {
  id = id, after = after, priority = priority, token = 0, state = 'queued',
  -- A string, since Redis takes half a microsecond to write each number out.
  sequence = string.format('%.0f', write('INCR', key('sequence'))),
}
local earlier, earlier_state = blocker(job)
write('HSET', key('job', id),
  'id', id, 'owner', owner, 'submission', submission, 'body_sha256', body_sha256,
  'sequence', job.sequence, 'priority', priority, 'max_attempts', max_attempts, 'after', after,
  'num_failures', 0, 'token', 0, 'state', 'queued', 'created_at', now, 'updated_at', now)
if traceparent ~= '' then set(job, {traceparent = traceparent}) end
set(job, {deadline_ms = deadline_ms ~= '' and deadline_ms or nil, reason = waits_for(earlier)})
for i = 2, #KEYS do write('ZADD', KEYS[i], job.sequence, id) end
write('ZADD', key('state', 'queued'), job.sequence, id)
if deadline_ms ~= '' then write('ZADD', key('deadlines'), now + deadline_ms, id) end
place(job)
emit_state(job)
-- The same end, whether the other job failed before this submit or after it.
if earlier and FINAL[earlier_state] then give_up(job, earlier, earlier_state) end
return {1, now, earlier and snapshot(id)}
