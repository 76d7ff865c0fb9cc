-- The lease's owner records an attempt, whose number it has claimed in the store; `starting` stays.
local id, owner, number = ARGV[1], ARGV[2], ARGV[3]
local job = get(id)
check_owner(job, owner)
if job.open == number then return snapshot(id) end
if job.open then
  refuse('CONFLICT', 'attempt ' .. job.open .. ' of job ' .. id .. ' is under way: finish it first')
end
if tonumber(number) <= tonumber(job.token) then
  refuse('STALE_TOKEN', 'attempt ' .. number .. ' of job ' .. id .. ' is not newer than attempt '
    .. job.token .. ': claim a higher number')
end
local changes = {
  token = number, open = number, heartbeat_at = false, updated_at = now,
  started_at = job.started_at or now,
}
put_attempt(changes, number, {number = tonumber(number), state = 'starting', started_at = now})
set(job, changes)
emit_state(job)
return snapshot(id)
