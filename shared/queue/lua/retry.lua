-- Somebody asks for another try: failed or canceled -> queued, with all its attempts before it.
local job = get(ARGV[1])
return once(job, ARGV[2], function()
  if not FINAL[job.state] or not allowed(job.state, 'queued') then
    refuse('CONFLICT', 'job ' .. job.id .. ' is ' .. job.state
      .. ': only a failed or canceled job can be retried')
  end
  local earlier, state = blocker(job)
  if earlier and FINAL[state] then
    refuse('CONFLICT', 'job ' .. job.id .. ' waits for job ' .. earlier .. ', which is ' .. state
      .. ': retry that one first')
  end
  move(job, 'queued', {num_failures = 0, ended_at = false, done_id = false, result = false})
  if job.deadline_ms then write('ZADD', key('deadlines'), now + job.deadline_ms, job.id) end
  write('PERSIST', key('events', job.id))
end)
