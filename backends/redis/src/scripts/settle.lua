-- Settles whole runs. ARGV: clock offset, lanes, blocking, then per run: unit, fence, nonce, form and its arguments.
-- Forms: 'P' count (all published); 'H' delay (handed back); 'V' verdicts, a letter each, then for each letter in turn
-- 'R' delay, error; 'L' delay; 'B' reason; 'P' nothing. First everything is checked, then everything is changed.
local lanes, blocking = tonumber(ARGV[2]), ARGV[3] == '1'
local now = clock(ARGV[1])


local function read_verdicts(letters, at)
  local verdicts = {}
  for index = 1, #letters do
    local letter = sub(letters, index, index)
    local verdict = { letter = letter }
    if letter == 'R' then
      verdict.after, verdict.reason = tonumber(ARGV[at]), ARGV[at + 1]
      at = at + 2
    elseif letter == 'L' then
      verdict.after = tonumber(ARGV[at])
      at = at + 1
    elseif letter == 'B' then
      verdict.reason = ARGV[at]
      at = at + 1
    end
    verdicts[index] = verdict
  end
  return verdicts, at
end

-- Per key: settled messages, then at most one retry or blocking burial, then only releases.
local function misshapen(records, verdicts)
  local stopped = {}
  for index = 1, #verdicts do
    local key = key_of((open(records[index])))
    if key then
      local letter = verdicts[index].letter
      if stopped[key] and letter ~= 'L' then
        return index
      end
      if letter == 'R' or letter == 'L' or (letter == 'B' and blocking) then
        stopped[key] = true
      end
    end
  end
  return nil
end

local runs, at = {}, 4
while ARGV[at] do
  local run = { unit = tonumber(ARGV[at]), fence = tonumber(ARGV[at + 1]), nonce = ARGV[at + 2], form = ARGV[at + 3] }
  local argument = ARGV[at + 4]
  at = at + 5
  if run.form == 'V' then
    run.verdicts, at = read_verdicts(argument, at)
    run.count = #run.verdicts
  elseif run.form == 'P' then
    run.count = tonumber(argument)
  else
    run.after = tonumber(argument)
  end
  local packed = call('HGET', state_key, run.unit)
  local lane = packed and load_lane(packed)
  local code = standing(run.unit, lane, run.fence, run.nonce)
  if code == 'C' and run.count then
    local number = #runs + 1
    if run.count ~= lane.run then
      return format('!run %d has %d messages and was given %d verdicts', number, lane.run, run.count)
    end
    if run.verdicts then
      local place = misshapen(call('LRANGE', list_of(run.unit), 0, lane.run - 1), run.verdicts)
      if place then
        return format('!verdict %d of run %d: after a message of a key that stays, only releases may follow', place, number)
      end
    end
  end
  runs[#runs + 1] = run
end

-- Sets a message without a key aside until it is due.
local function set_aside(inner, attempts, strikes, limit, due, reason)
  local number = next_sequence()
  call('ZADD', later_key, due, number)
  call('HSET', records_key, number, seal(inner, attempts, strikes, limit, 0))
  call('ZADD', ids_key, 0, id_of(inner) .. 'l' .. number)
  if reason then
    call('HSET', reasons_key, number, reason)
  end
end

-- Carries out the verdicts; answers what goes back to the head of the lane, and, for a parked key, whether it is blocked.
local function apply(unit, lane, records, verdicts)
  local kept, parks, order, reason, blocked = {}, {}, {}, nil, ''
  for index = 1, #verdicts do
    local verdict = verdicts[index]
    local letter = verdict.letter
    if letter ~= 'P' then
      local inner, attempts, strikes, limit = open(records[index])
      local key = key_of(inner)
      local due = 0
      if letter == 'R' then
        attempts, strikes, limit = math.min(attempts + 1, 4294967295), 0, 0
      end
      if letter == 'R' or (letter == 'L' and verdict.after > 0) then
        due = now + verdict.after
      end
      if letter == 'B' then
        local number = bury(inner, attempts, 0, verdict.reason, now)
        if blocking and key then
          if unit >= PARKED then
            blocked = tostring(number)
          else
            parks[key] = parks[key] or { records = {} }
            parks[key].blocked = tostring(number)
            order[#order + 1] = key
          end
        end
      elseif not key then
        if due > 0 then
          set_aside(inner, attempts, strikes, limit, due, verdict.reason)
        else
          kept[#kept + 1] = records[index]
        end
      elseif unit >= PARKED then
        kept[#kept + 1] = seal(inner, attempts, strikes, limit, due)
        if #kept == 1 then
          reason = verdict.reason
        end
      else
        local stay = parks[key]
        if not stay then
          stay = { records = {}, reason = verdict.reason }
          parks[key] = stay
          order[#order + 1] = key
        end
        stay.wait = stay.wait or due > 0
        stay.records[#stay.records + 1] = seal(inner, attempts, strikes, limit, due)
        -- Its place in the lane, should nothing of the key have to wait.
        kept[#kept + 1] = { key = key, record = records[index] }
      end
    end
  end
  local front = {}
  for index = 1, #kept do
    local entry = kept[index]
    if type(entry) == 'string' then
      front[#front + 1] = entry
    elseif not (parks[entry.key].wait or parks[entry.key].blocked) then
      front[#front + 1] = entry.record
    end
  end
  for index = 1, #order do
    local key = order[index]
    local stay = parks[key]
    if stay.wait or stay.blocked then
      park(key, stay.records, stay.blocked or '', stay.reason or '')
    end
  end
  return front, reason or '', blocked
end

make_room()
local codes = {}
for index = 1, #runs do
  local run = runs[index]
  local unit, list = run.unit, list_of(run.unit)
  local packed = call('HGET', state_key, unit)
  local lane = packed and load_lane(packed)
  local code = standing(unit, lane, run.fence, run.nonce)
  if code == 'C' then
    -- A store that lost its last writes may have given the list back: the run must still lie where it was read.
    local first, last = call('LINDEX', list, 0), call('LINDEX', list, lane.run - 1)
    if not first or not last or id_of((open(first))) ~= lane.first or id_of((open(last))) ~= lane.last then
      code = 'F'
    end
  end
  if code == 'C' then
    code = '1'
    local count, reason, blocked, back = lane.run, '', '', 0
    if run.form == 'P' then
      call('LTRIM', list, count, -1)
    elseif run.form == 'V' then
      local records = call('LRANGE', list, 0, count - 1)
      local front
      front, reason, blocked = apply(unit, lane, records, run.verdicts)
      call('LTRIM', list, count, -1)
      push_front(list, front)
      back = #front
    else
      back = count
      lane.not_before = run.after > 0 and now + run.after or 0
    end
    free(unit, lane)
    lane.settled_fence, lane.settled_nonce = run.fence, run.nonce
    lane.first, lane.last = '', ''
    if unit >= PARKED then
      call('HINCRBY', state_key, 'parked:records', back - count)
      lane.blocked = blocked
      if run.form ~= 'H' then
        lane.reason, lane.not_before = reason, 0
      end
      keep_parked(unit, lane)
    else
      call('HSET', state_key, unit, pack_lane(lane))
    end
  end
  codes[index] = code
end
return format('%.0f ', now) .. table.concat(codes)
