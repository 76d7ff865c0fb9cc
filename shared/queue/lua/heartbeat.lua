-- The attempt lives: starting -> running at its first heartbeat. Returns what it should do: the
-- stop that was asked, 'interrupt', or nil for going on.
local id, token, progress = ARGV[1], ARGV[2], ARGV[3]
local job = get(id)
check_token(job, token)
local changes = {heartbeat_at = now}
if progress ~= '' then changes.progress, changes.updated_at = progress, now end
if job.state == 'starting' then
  local running = attempt(job, token)
  running.state = 'running'
  put_attempt(changes, token, running)
  changes.reason = job.reason
  move(job, 'running', changes)
else
  set(job, changes)
end
return job.stop_requested or (job.interrupt == token and 'interrupt')
