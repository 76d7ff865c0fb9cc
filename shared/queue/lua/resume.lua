-- Somebody lets a paused job go on: paused -> queued.
local job = get(ARGV[1])
if job.state ~= 'paused' then
  refuse('CONFLICT', 'job ' .. job.id .. ' is ' .. job.state
    .. ': only a paused job can be resumed')
end
move(job, 'queued', {})
return snapshot(job.id)
