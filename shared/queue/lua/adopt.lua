-- A dispatcher takes over the active jobs whose leases have ended. Their attempts go on.
local owner, ttl_ms, limit = ARGV[1], ARGV[2], ARGV[3]
local adopted = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, limit)) do
  write('ZADD', key('leases'), now + ttl_ms, id)
  -- A lease without an owner was let go of.
  if redis.call('HGET', key('job', id), 'lease_owner') then
    write('HINCRBY', key('tally'), 'lease_expiries', 1)
  end
  set({id = id}, {lease_owner = owner})
  table.insert(adopted, snapshot(id))
end
return adopted
