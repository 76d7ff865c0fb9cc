-- One job and, while it is queued, how many would be leased before it. Returns {number or nil,
-- job}.
local job = get(ARGV[1])
local ahead = job.state == 'queued'
  and redis.call('ZCOUNT', key('ready'), '-inf', string.format('(%.0f', rank(job)))
return {ahead, snapshot(job.id)}
