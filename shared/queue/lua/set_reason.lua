-- A dispatcher says what a ready job waits for. No event if nothing changed.
local id, reason = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', key('ready'), id) then return end
local job = find(id)
if (job.reason or '') == reason then return end
set(job, {reason = reason ~= '' and reason or false, updated_at = now})
emit_state(job)
