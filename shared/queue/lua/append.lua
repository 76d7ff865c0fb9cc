-- Events of the attempt (with its token) or of whoever speaks about the job (without).
-- ARGV[4...]: type, data, type, data ... Returns the ids.
GROWS = true
local id, token, cap = ARGV[1], ARGV[2], ARGV[3]
local job = get(id)
if token ~= '' then check_token(job, token) end
local ids = {}
for i = 4, #ARGV, 2 do
  table.insert(ids, write(
    'XADD', key('events', id), 'MAXLEN', '~', cap, '*', 'type', ARGV[i], 'data', ARGV[i + 1]
  ))
end
return ids
