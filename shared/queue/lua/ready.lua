-- What a dispatcher may lease now, by rank. Promotes retries that are due; cancels what is past its
-- deadline. Returns jobs.
local limit, batch = ARGV[1], ARGV[2]
local function due(index)
  return ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, batch))
end
for _, id in due(key('delayed')) do
  write('ZREM', key('delayed'), id)
  write('ZADD', key('ready'), rank(find(id)), id)
end
for _, id in due(key('deadlines')) do
  local job = find(id)
  write('ZREM', key('deadlines'), id)
  stop(job, 'cancel', string.format('its deadline of %g s has passed', job.deadline_ms / 1000))
end
local jobs = {}
for _, id in ipairs(redis.call('ZRANGE', key('ready'), 0, limit - 1)) do
  table.insert(jobs, snapshot(id))
end
return jobs
