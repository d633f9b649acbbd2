-- Writes the settings of an outbox unless it has some, and answers those that it has. ARGV: names and values.
local settings_key = prefix .. 'settings'
if call('EXISTS', settings_key) == 0 then
  call('HSET', settings_key, unpack(ARGV))
end
return call('HGETALL', settings_key)
