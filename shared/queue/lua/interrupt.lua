-- The attempt got SIGTERM from outside: its next heartbeat says so, on whichever rank it runs.
local id, token = ARGV[1], ARGV[2]
local job = get(id)
check_token(job, token)
set(job, {interrupt = token})
