-- Somebody asks for a cancel: queued or paused -> canceled; an active job gets the wish.
local job = get(ARGV[1])
return once(job, ARGV[2], function()
  if not allowed(job.state, 'canceled') then
    refuse('CONFLICT', 'job ' .. job.id .. ' is ' .. job.state .. ': it cannot be canceled')
  end
  stop(job, 'cancel', 'a cancel was asked')
end)
