-- Redrives or discards dead letters. ARGV: clock offset, lanes, 'redrive' or 'discard', then their numbers.
-- Answers how many were still dead.
local now = clock(ARGV[1])
local lanes, redrive = tonumber(ARGV[2]), ARGV[3] == 'redrive'
local count = 0
for at = 4, #ARGV do
  local number = ARGV[at]
  if call('ZREM', dead_key, number) == 1 then
    count = count + 1
    local inner = open(call('HGET', records_key, number) or '')
    call('HDEL', records_key, number)
    call('HDEL', reasons_key, number)
    call('ZREM', ids_key, id_of(inner) .. 'd' .. number)
    local key = key_of(inner)
    local unit = key and tonumber(call('HGET', parked_key, key) or false)
    local lane = unit and load_lane(call('HGET', state_key, unit))
    if lane and lane.blocked == number then
      -- The dead letter holds its key: back to the head, or out of the way.
      if redrive then
        call('LPUSH', list_of(unit), inner)
        call('HINCRBY', state_key, 'parked:records', 1)
      end
      lane.blocked, lane.reason, lane.not_before = '', '', 0
      keep_parked(unit, lane)
    elseif redrive then
      push_back(home_of(inner, lanes, tonumber(number)), inner)
    end
  end
end
flush_tails()
return count
