-- Somebody lets a paused job go on: paused -> queued.
local job = get(ARGV[1])
return once(job, ARGV[2], function()
  if job.state ~= 'paused' then
    refuse('CONFLICT', 'job ' .. job.id .. ' is ' .. job.state
      .. ': only a paused job can be resumed')
  end
  move(job, 'queued', {})
end)
