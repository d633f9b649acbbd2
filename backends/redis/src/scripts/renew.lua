-- Prolongs leases, and never shortens one. ARGV: clock offset, lease, then per token: unit, fence, nonce.
local lease = tonumber(ARGV[2])
local now = clock(ARGV[1])
make_room()
local answers = { format('%.0f', now) }
for at = 3, #ARGV, 3 do
  local unit, fence, nonce = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
  local packed = call('HGET', state_key, unit)
  local lane = packed and load_lane(packed)
  local code = standing(unit, lane, fence, nonce)
  if code == 'C' then
    lane.expires, lane.renewed = math.max(lane.expires, now + lease), 1
    call('HSET', state_key, unit, pack_lane(lane))
    if unit >= PARKED then
      call('ZADD', due_key, lane.expires, unit)
    end
    code = format('%.0f', lane.expires)
  end
  answers[#answers + 1] = code
end
return table.concat(answers, ' ')
