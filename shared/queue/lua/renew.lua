-- A dispatcher keeps its leases for `ttl_ms` from now. Returns the ids that are still its own.
local owner, ttl_ms = ARGV[1], ARGV[2]
local ours = {}
for i = 3, #ARGV do
  if redis.call('HGET', key('job', ARGV[i]), 'lease_owner') == owner then
    write('ZADD', key('leases'), now + ttl_ms, ARGV[i])
    table.insert(ours, ARGV[i])
  end
end
return ours
