-- The events of an ended job go after `ttl_s`; those of a job that was retried meanwhile stay.
local id, ttl_s = ARGV[1], ARGV[2]
if FINAL[get(id).state] then write('EXPIRE', key('events', id), ttl_s) end
