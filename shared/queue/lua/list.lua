-- Jobs that are in all indexes KEYS[2...], newest first, below the sequence number `before`. Walks
-- the smallest index for at most `steps` entries. Returns {where to go on or nil, jobs}.
local before, limit, steps = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local smallest
local size = math.huge
for i = 2, #KEYS do
  local entries = redis.call('ZCARD', KEYS[i])
  if entries < size then smallest, size = KEYS[i], entries end
end
local function in_all(id)
  for i = 2, #KEYS do
    if KEYS[i] ~= smallest and not redis.call('ZSCORE', KEYS[i], id) then return false end
  end
  return true
end
local entries = redis.call(
  'ZREVRANGEBYSCORE', smallest, before, '-inf', 'WITHSCORES', 'LIMIT', 0, steps
)
local jobs = {}
for i = 1, #entries, 2 do
  if in_all(entries[i]) then table.insert(jobs, snapshot(entries[i])) end
  if #jobs == limit then return {'(' .. entries[i + 1], jobs} end
end
return {#entries == 2 * steps and '(' .. entries[#entries], jobs}
