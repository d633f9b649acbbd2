-- Hands out runs. ARGV: clock offset, limit, lease, nonce, solo, lanes, max strikes, blocking, byte budget, first peek.
local limit, lease, nonce, solo = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local lanes, max_strikes, blocking = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local budget, first_peek = tonumber(ARGV[9]), tonumber(ARGV[10])
local now = clock(ARGV[1])
-- How many records one call promotes, and how many it rewrites or sets aside: what bounds its time.
local PROMOTED, REWRITTEN, PARKED_RUNS = 500, 1000, 64
-- From so many messages on the claimant reads a run itself: a record costs the server four times as much within a script as
-- in an answer of `LRANGE`, and shorter ones are not worth another exchange. One record of so many is looked at then.
local LONG, SAMPLED = 64, 32

if call('HGET', prefix .. 'settings', 'lanes') ~= ARGV[6] then
  return 'settings'
end

make_room()
local fields = { 'fence', 'cursor' }
for lane = 0, lanes - 1 do
  fields[lane + 3] = lane
end
for lane = 0, EXPRESS_LANES - 1 do
  fields[lanes + lane + 3] = EXPRESS + lane
end
local stored = call('HMGET', state_key, unpack(fields))
local fence, cursor = tonumber(stored[1] or 0), tonumber(stored[2] or 0)

local runs, entries, changed = {}, {}, {}
local room, taken_bytes, buried, rewritten = limit, 0, 0, 0
local next_due = math.huge
local any_parked = call('HLEN', parked_key) > 0
local last_taken = cursor - 1

local function wait_for(time)
  if time < next_due then
    next_due = time
  end
end

-- `place` is 1 if the records of the run are in the answer, and 0 if the claimant reads them itself.
local function note_run(unit, lane, place)
  runs[#runs + 1] =
    format('%.0f %.0f %.0f %.0f %d %d', unit, lane.fence, lane.claimed_at, lane.expires, lane.run, place)
end

local function reply()
  if room > 0 then
    local first = call('ZRANGE', later_key, 0, 0, 'WITHSCORES')
    wait_for(tonumber(first[2] or math.huge))
    first = call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
    wait_for(tonumber(first[2] or math.huge))
    if call('EXISTS', inbox_key) == 1 then
      wait_for(now)
    end
  end
  local due = '-'
  if room > 0 and next_due < math.huge then
    due = format('%.0f', math.max(next_due, now))
  end
  local head = format('%.0f %s %d %d', now, due, buried, call('ZCARD', suspects_key))
  if #runs > 0 then
    -- One string for all records, which costs the relay one allocation.
    return { head .. ' ' .. table.concat(runs, ' '), cmsgpack.pack(entries) }
  end
  return { head }
end

-- The same claim again: the same runs, as long as their leases live.
local function repeat_run(unit, packed)
  local lane = load_lane(packed)
  if lane.expires > now then
    local records = call('LRANGE', list_of(unit), 0, lane.run - 1)
    for index = 1, #records do
      entries[#entries + 1] = records[index]
    end
    note_run(unit, lane, 1)
    room = room - lane.run
  end
end

for index = 3, #fields do
  local packed = stored[index]
  if packed and sub(packed, 1, 16) == nonce then
    repeat_run(fields[index], packed)
  end
end
if any_parked then
  local held = call('SMEMBERS', claim_key(nonce))
  for index = 1, math.min(#held, 2 * PARKED_RUNS) do
    local packed = call('HGET', state_key, held[index])
    if packed then
      repeat_run(tonumber(held[index]), packed)
    end
  end
end
if #runs > 0 or limit == 0 then
  return reply()
end

-- A claim ended without an outcome: its run becomes half as long, and the last of all is buried.
local function strike(unit, lane)
  local list, run = list_of(unit), lane.run
  local records = call('LRANGE', list, 0, run - 1)
  local charged = (lane.solo == 1 and lane.renewed == 1) and 1 or 0
  local new_limit = math.max(1, floor(run / 2))
  local marked = {}
  local held_by, key = '', nil
  for index = 1, #records do
    local inner, attempts, strikes, _, due = open(records[index])
    strikes = strikes + charged
    if charged == 1 and strikes >= max_strikes then
      local reason = format('its relay died %d times while it held this message alone', strikes)
      local number = bury(inner, attempts, strikes, reason, now)
      buried = buried + 1
      key = key_of(inner)
      if blocking and key then
        held_by = tostring(number)
      end
    else
      marked[#marked + 1] = seal(inner, attempts, strikes, new_limit, due)
    end
  end
  call('LTRIM', list, #records, -1)
  push_front(list, marked)
  rewritten = rewritten + #records
  free(unit, lane)
  if unit >= PARKED then
    call('HINCRBY', state_key, 'parked:records', #marked - #records)
    lane.blocked = held_by
    keep_parked(unit, lane)
  else
    call('HSET', state_key, unit, pack_lane(lane))
    if held_by ~= '' then
      park(key, {}, held_by, '')
      any_parked = true
    end
  end
end

-- Which of these records' keys are parked, as a table from key to unit.
local function parked_units(records)
  local keys, seen, units = {}, {}, {}
  for index = 1, #records do
    local key = key_of((open(records[index])))
    if key and not seen[key] then
      seen[key] = true
      keys[#keys + 1] = key
    end
  end
  for from = 1, #keys, CHUNK do
    local upto = math.min(from + CHUNK - 1, #keys)
    local found = call('HMGET', parked_key, unpack(keys, from, upto))
    for index = from, upto do
      if found[index - from + 1] then
        units[keys[index]] = tonumber(found[index - from + 1])
      end
    end
  end
  return units
end

-- Leases a run from the head of a lane.
local function lease_run(unit, lane, first, last, count, bytes)
  fence = fence + 1
  lane.nonce, lane.fence, lane.claimed_at, lane.expires, lane.run = nonce, fence, now, now + lease, count
  lane.solo, lane.renewed = solo and 1 or 0, 0
  lane.first, lane.last = id_of((open(first))), id_of((open(last)))
  if unit >= PARKED then
    if lane.indexed ~= '' then
      call('ZREM', ids_key, lane.indexed)
      lane.indexed = ''
    end
    call('ZADD', due_key, lane.expires, unit)
    call('SADD', claim_key(nonce), unit)
    call('HINCRBY', state_key, 'parked:claimed', count)
  end
  changed[#changed + 1], changed[#changed + 2] = unit, pack_lane(lane)
  room = room - count
  taken_bytes = taken_bytes + bytes
end

-- Leases a long run of a lane of producers without looking at each record, and answers how many there are; nil if they must be
-- looked at. What relays had trouble with stands in front there, so behind a record without an envelope there is none with
-- one. How large they are is told by a few of them, at places that no pattern of a producer meets.
local function take_unread(unit, lane, cap)
  local list = list_of(unit)
  local count = math.min(cap, call('LLEN', list))
  if count < LONG then
    return nil
  end
  local first = call('LINDEX', list, 0)
  if byte(first, 1) == 225 then
    return nil
  end
  local last = call('LINDEX', list, count - 1)
  local largest = math.max(#first, #last)
  for from = 0, count - 1, SAMPLED do
    local place = math.min(from + (fence + from * 7 / SAMPLED) % SAMPLED, count - 1)
    largest = math.max(largest, #call('LINDEX', list, place))
  end
  if largest * count > budget - taken_bytes then
    return nil
  end
  lease_run(unit, lane, first, last, count, largest * count)
  note_run(unit, lane, 0)
  return count
end

-- Reads a run from the head of a lane, at most `cap` long, and leases it. All of a run are under the same suspicion: a
-- search for a deadly message neither spreads nor starts again. Answers how many were taken.
local function take(unit, lane, cap)
  local list, diverting = list_of(unit), any_parked and unit < lanes
  if unit < lanes and not diverting and not solo then
    local count = take_unread(unit, lane, cap)
    if count then
      return count
    end
  end
  local chosen, kept, diverted, at = {}, 0, 0, 0
  local mark, peek, ended = nil, math.min(first_peek, cap), false
  local bytes = 0
  while not ended and kept < cap do
    local records = call('LRANGE', list, at, at + peek - 1)
    local units = diverting and parked_units(records)
    for index = 1, #records do
      local record = records[index]
      local record_limit, due = 0, 0
      if byte(record, 1) == 225 then
        local _
        _, _, _, record_limit, due = open(record)
        if unit < PARKED then
          due = 0
        end
      end
      local unit_of_key
      if units then
        local key = key_of((open(record)))
        unit_of_key = key and units[key]
      end
      if unit_of_key then
        if rewritten >= REWRITTEN then
          ended = true
          wait_for(now)
          break
        end
        local inner, attempts, strikes, marked = open(record)
        push_back(unit_of_key, seal(inner, attempts, strikes, marked, 0))
        diverted = diverted + 1
        rewritten = rewritten + 1
      else
        if kept == 0 then
          mark = record_limit
          if (mark == 1) ~= solo or due > now then
            ended = true
            break
          end
          if mark > 0 then
            cap = math.min(cap, mark)
          end
        elseif record_limit ~= mark or due > now then
          ended = true
          break
        end
        kept = kept + 1
        chosen[kept] = record
        bytes = bytes + #record
        if kept == cap or taken_bytes + bytes >= budget then
          ended = true
          break
        end
      end
    end
    at = at + #records
    if #records < peek then
      break
    end
    -- Twice as many as before, as far as their size allows.
    local average = math.max(1, bytes / math.max(1, kept))
    peek = math.max(1, math.min(peek * 4, cap - kept, floor((budget - taken_bytes - bytes) / average) + 1))
  end
  if diverted > 0 then
    call('LTRIM', list, kept + diverted, -1)
    push_front(list, chosen)
    flush_tails()
  end
  if kept == 0 then
    if mark == 1 and not solo then
      call('ZADD', suspects_key, 'NX', now, unit)
      if unit >= PARKED then
        call('ZREM', due_key, unit)
      end
    end
    return 0
  end
  lease_run(unit, lane, chosen[1], chosen[kept], kept, bytes)
  note_run(unit, lane, 1)
  local count = #entries
  for index = 1, kept do
    entries[count + index] = chosen[index]
  end
  return kept
end

-- Takes from a lane if it is free or its lease ran out, and due. Answers how many messages.
local function visit(unit, packed, cap)
  local lane = load_lane(packed)
  if lane.nonce ~= FREE then
    if lane.expires > now then
      wait_for(lane.expires)
      return 0
    end
    if rewritten >= REWRITTEN then
      wait_for(now)
      return 0
    end
    strike(unit, lane)
    if unit >= PARKED then
      packed = call('HGET', state_key, unit)
      if not packed then
        return 0
      end
      lane = load_lane(packed)
    end
  elseif solo then
    return 0
  end
  if lane.blocked ~= '' then
    return 0
  end
  if lane.not_before > now then
    if unit >= PARKED or call('EXISTS', list_of(unit)) == 1 then
      wait_for(lane.not_before)
    end
    return 0
  end
  if solo then
    -- Only looks whether a suspect stands there now: it is handed out below.
    local head = call('LINDEX', list_of(unit), 0)
    if head then
      local _, _, _, record_limit = open(head)
      if record_limit == 1 then
        call('ZADD', suspects_key, 'NX', now, unit)
        if unit >= PARKED then
          call('ZREM', due_key, unit)
        end
      end
    end
    return 0
  end
  return take(unit, lane, cap)
end

sort_inbox(now, lanes, PROMOTED)
local due = call('ZRANGEBYSCORE', later_key, '-inf', now, 'LIMIT', 0, PROMOTED)
if #due > 0 then
  local records = call('HMGET', records_key, unpack(due))
  local names = {}
  for index = 1, #due do
    if records[index] then
      local inner = open(records[index])
      names[#names + 1] = id_of(inner) .. 'l' .. due[index]
      push_back(home_of(inner, lanes, tonumber(due[index])), records[index])
    end
  end
  flush_tails()
  each_chunk('ZREM', later_key, due)
  each_chunk('HDEL', records_key, due)
  each_chunk('HDEL', reasons_key, due)
  each_chunk('ZREM', ids_key, names)
end

-- Messages that come back get up to half of a claim, so that neither they nor new ones starve.
local reserved = 0
if not solo then
  local returning = 0
  for lane = 0, EXPRESS_LANES - 1 do
    returning = returning + call('LLEN', list_of(EXPRESS + lane))
  end
  if any_parked then
    returning = returning + call('ZCOUNT', due_key, '-inf', now)
  end
  reserved = math.min(returning, floor((limit + fence % 2) / 2))
end

local step, cut_short = 0, false
local function visit_lanes(keep)
  while step < lanes and taken_bytes < budget and (room > keep or solo) do
    local lane = (cursor + step) % lanes
    step = step + 1
    local cap = room - keep
    local taken = visit(lane, stored[lane + 3], cap)
    if taken > 0 then
      last_taken = lane
      cut_short = cut_short or taken == cap
    end
  end
end

visit_lanes(reserved)
if any_parked then
  local units = call('ZRANGEBYSCORE', due_key, '-inf', now, 'LIMIT', 0, PARKED_RUNS)
  for index = 1, #units do
    if room <= 0 or taken_bytes >= budget then
      break
    end
    local packed = call('HGET', state_key, units[index])
    if packed then
      visit(tonumber(units[index]), packed, room)
    else
      call('ZREM', due_key, units[index])
    end
  end
end
local first_express = fence
for offset = 0, EXPRESS_LANES - 1 do
  local lane = (first_express + offset) % EXPRESS_LANES
  if room <= 0 or taken_bytes >= budget then
    break
  end
  visit(EXPRESS + lane, stored[lanes + lane + 3], room)
end
-- What was reserved and not used.
visit_lanes(0)
if cut_short or taken_bytes >= budget then
  wait_for(now)
end

if solo then
  local units = call('ZRANGE', suspects_key, 0, 15)
  for index = 1, #units do
    local unit = tonumber(units[index])
    call('ZREM', suspects_key, unit)
    local lane = load_lane(call('HGET', state_key, unit))
    if lane.nonce == FREE and lane.blocked == '' then
      if take(unit, lane, 1) > 0 then
        break
      elseif unit >= PARKED then
        keep_parked(unit, lane)
      end
    end
  end
end

if #runs > 0 then
  changed[#changed + 1], changed[#changed + 2] = 'fence', fence
  changed[#changed + 1], changed[#changed + 2] = 'cursor', (last_taken + 1) % lanes
  each_chunk('HSET', state_key, changed, 2)
end
return reply()
