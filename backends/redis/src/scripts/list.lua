-- A page of what is stored, at most `limit`. ARGV: state, place, offset, limit, lanes. Answers the next place and offset ('' at the end) and
-- flat groups of record, due time, time of death, reason and number.
local state, place, offset, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lanes = tonumber(ARGV[5])
local answer = { '', '' }
local function add(record, due, died, reason, number)
  for _, value in ipairs({ record, due, died, reason or '', number or '' }) do
    answer[#answer + 1] = value
  end
end
local function go_on(next_place, next_offset)
  answer[1], answer[2] = tostring(next_place), tostring(next_offset)
  return answer
end
local function numbered(zset, is_dead)
  local found = call('ZRANGE', zset, offset, offset + limit - 1, 'WITHSCORES')
  for at = 1, #found, 2 do
    local record = call('HGET', records_key, found[at])
    local reason = call('HGET', reasons_key, found[at])
    if record then
      add(record, is_dead and '' or found[at + 1], is_dead and found[at + 1] or '', reason, found[at])
    end
  end
  return #found / 2
end

if state == 'dead' then
  if numbered(dead_key, true) == limit then
    return go_on(0, offset + limit)
  end
  return answer
end
if state == 'pending' then
  -- Places are lanes; what a claim holds is passed over.
  local unit = place < lanes and place or EXPRESS + place - lanes
  local packed = call('HGET', state_key, unit)
  local from = math.max(offset, packed and load_lane(packed).run or 0)
  local records = call('LRANGE', list_of(unit), from, from + limit - 1)
  for index = 1, #records do
    add(records[index], '', '')
  end
  if #records == limit then
    return go_on(place, from + limit)
  elseif place + 1 < lanes + EXPRESS_LANES then
    return go_on(place + 1, 0)
  end
  return answer
end
-- Scheduled: place 0 is what waits by itself, 1 what has just arrived, 2 and above the parked keys by unit.
if place == 0 then
  if numbered(later_key, false) == limit then
    return go_on(0, offset + limit)
  end
  return go_on(1, 0)
end
if place == 1 then
  local records = call('LRANGE', inbox_key, offset, offset + limit - 1)
  for index = 1, #records do
    add(records[index], format('%.0f', deliver_at_of((open(records[index])))), '')
  end
  return go_on(#records == limit and 1 or 2, #records == limit and offset + limit or 0)
end
local units = call('ZRANGEBYSCORE', units_key, place, '+inf', 'LIMIT', 0, 50)
local room = limit
for index = 1, #units do
  local unit = tonumber(units[index])
  local packed = call('HGET', state_key, unit)
  local lane = load_lane(packed)
  local from = math.max(unit == place and offset or 0, lane.run)
  local records = call('LRANGE', list_of(unit), from, from + room - 1)
  local due = lane.blocked == '' and format('%.0f', lane.not_before) or ''
  for at = 1, #records do
    add(records[at], due, '', from + at == 1 and lane.reason or '')
  end
  room = room - #records
  if room == 0 then
    return go_on(unit, from + #records)
  end
end
if #units == 50 then
  return go_on(tonumber(units[50]) + 1, 0)
end
return answer
