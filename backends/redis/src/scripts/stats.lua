-- Counts. ARGV: lanes, clock offset. Answers pending, scheduled, claimed, dead, the time, and the heads of the lanes.
local lanes = tonumber(ARGV[1])
local pending, claimed, heads = 0, 0, {}
local function count(unit)
  local length = call('LLEN', list_of(unit))
  local packed = call('HGET', state_key, unit)
  local run = packed and load_lane(packed).run or 0
  pending, claimed = pending + length - run, claimed + run
  if length > run then
    heads[#heads + 1] = sub((open(call('LINDEX', list_of(unit), run))), 1, 36)
  end
end
for lane = 0, lanes - 1 do
  count(lane)
end
for lane = 0, EXPRESS_LANES - 1 do
  count(EXPRESS + lane)
end
local parked = tonumber(call('HGET', state_key, 'parked:records') or 0)
local parked_claimed = tonumber(call('HGET', state_key, 'parked:claimed') or 0)
local scheduled = call('ZCARD', later_key) + call('LLEN', inbox_key) + parked - parked_claimed
return { pending, scheduled, claimed + parked_claimed, call('ZCARD', dead_key), format('%.0f', clock(ARGV[2])), heads }
