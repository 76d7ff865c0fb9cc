-- Somebody asks for a pause: queued -> paused; an active job gets the wish.
local job = get(ARGV[1])
return once(job, ARGV[2], function()
  if not allowed(job.state, 'paused') then
    refuse('CONFLICT', 'job ' .. job.id .. ' is ' .. job.state .. ': it cannot be paused')
  end
  if job.stop_requested == 'cancel' then
    refuse('CONFLICT', 'job ' .. job.id .. ' is being canceled: it cannot be paused')
  end
  stop(job, 'pause', 'a pause was asked')
end)
