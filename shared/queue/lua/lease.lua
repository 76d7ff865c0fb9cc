-- A dispatcher takes a job that is ready: queued -> starting. Returns nil if somebody was faster.
local id, owner, ttl_ms = ARGV[1], ARGV[2], ARGV[3]
if not redis.call('ZSCORE', key('ready'), id) then return false end
local job = find(id)
write('ZADD', key('leases'), now + ttl_ms, id)
move(job, 'starting', {lease_owner = owner})
return snapshot(id)
