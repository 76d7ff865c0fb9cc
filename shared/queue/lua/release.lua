-- A dispatcher lets go of its leases: whoever adopts next has the jobs.
local owner = ARGV[1]
for i = 2, #ARGV do
  local job = find(ARGV[i])
  if job and job.lease_owner == owner then
    write('ZADD', key('leases'), 0, job.id)
    set(job, {lease_owner = false})
    wake()
  end
end
