-- Milliseconds since the newest attempt's last heartbeat, or nil before the first.
local at = get(ARGV[1]).heartbeat_at
return at and now - at
