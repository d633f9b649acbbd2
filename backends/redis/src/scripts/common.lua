-- Shared by every script, which follows as one text. `KEYS[1]` is `{name}:state`; every other key has the same prefix.
-- Numbers above 10^14 are never concatenated, since Lua would round them: `string.format('%.0f')` or an argument does it.
local call = redis.call
local byte, sub, floor, format = string.byte, string.sub, math.floor, string.format
local state_key = KEYS[1]
local prefix = sub(state_key, 1, -6)
local inbox_key, later_key, records_key = prefix .. 'inbox', prefix .. 'later', prefix .. 'records'
local reasons_key, ids_key, dead_key = prefix .. 'reasons', prefix .. 'ids', prefix .. 'dead'
local parked_key, due_key, suspects_key = prefix .. 'parked', prefix .. 'parked:due', prefix .. 'suspects'
local units_key = prefix .. 'parked:units'
local ended_key, ended_order_key = prefix .. 'ended', prefix .. 'ended:order'

-- Units: the lanes of producers from 0, four for messages that come back, one per parked key above those.
local EXPRESS, EXPRESS_LANES, PARKED = 65536, 4, 1048576
-- `unpack` fails at about 8,000 values, and longer commands gain nothing.
local CHUNK = 500
local FREE = string.rep('\0', 16)

-- The server's time in microseconds. Read once per script: a second reading may differ.
local function clock(offset)
  local time = call('TIME')
  return time[1] * 1000000 + time[2] + offset
end

-- A full server refuses commands that take memory unless the script has written already. Claiming, renewing and settling go
-- on then, since draining is what frees memory.
local function make_room()
  call('HDEL', state_key, '')
end

local function list_of(unit)
  return prefix .. 'lane:' .. unit
end

local function claim_key(nonce)
  return prefix .. 'claim:' .. nonce
end

-- Runs a command with any number of further arguments; `step` keeps arguments that belong together in one call.
local function each_chunk(command, key, arguments, step)
  local size = CHUNK - CHUNK % (step or 1)
  for from = 1, #arguments, size do
    call(command, key, unpack(arguments, from, math.min(from + size - 1, #arguments)))
  end
end

-- Puts records in front of a list, in their order.
local function push_front(list, records)
  local reversed = {}
  for index = #records, 1, -1 do
    reversed[#reversed + 1] = records[index]
  end
  each_chunk('LPUSH', list, reversed)
end

-- Envelope: what the relays know of a record, in front of what its producer wrote. Most records have none.
local function open(record)
  if byte(record, 1) ~= 225 or #record < 24 or sub(record, 1, 4) ~= '\225PBX' then
    return record, 0, 0, 0, 0
  end
  local attempts, strikes, limit, high, low = struct.unpack('>I4I4I4I4I4', record, 5)
  return sub(record, 25), attempts, strikes, limit, high * 4294967296 + low
end

local function seal(inner, attempts, strikes, limit, due)
  if attempts == 0 and strikes == 0 and limit == 0 and due == 0 and sub(inner, 1, 4) ~= '\225PBX' then
    return inner
  end
  local fields = struct.pack('>I4I4I4I4I4', attempts, strikes, limit, floor(due / 4294967296), due % 4294967296)
  return '\225PBX' .. fields .. inner
end

-- The ordering key of an opened record; nil for none, and for what is no record.
local function key_of(inner)
  if #inner < 48 or byte(inner, 1) ~= 1 then
    return nil
  end
  local length = byte(inner, 37) * 256 + byte(inner, 38)
  if length == 0 or #inner < 48 + length then
    return nil
  end
  return sub(inner, 49, 48 + length)
end

-- The id of an opened record; shorter than 16 bytes where it is no record.
local function id_of(inner)
  return sub(inner, 5, 20)
end

-- When an opened record wants to be delivered; 0 for at once.
local function deliver_at_of(inner)
  if #inner < 48 or byte(inner, 1) ~= 1 or byte(inner, 2) % 2 == 0 or byte(inner, 29) >= 128 then
    return 0
  end
  local high, low = struct.unpack('>I4I4', inner, 29)
  return high * 4294967296 + low
end

-- The lane that the producer of an opened record chose; without a key one of the express lanes.
local function home_of(inner, lanes, spread)
  if key_of(inner) then
    return (byte(inner, 3) * 256 + byte(inner, 4)) % lanes
  end
  return EXPRESS + spread % EXPRESS_LANES
end

-- A lane: who holds it, and what it waits for. The nonce stands in front, so that a repeated claim finds it unparsed.
local function load_lane(packed)
  if not packed then
    return {
      nonce = FREE, fence = 0, claimed_at = 0, expires = 0, run = 0, solo = 0, renewed = 0, not_before = 0,
      settled_fence = 0, settled_nonce = FREE, first = '', last = '', key = '', blocked = '', reason = '', indexed = '',
    }
  end
  local field = cmsgpack.unpack(sub(packed, 17))
  return {
    nonce = sub(packed, 1, 16), fence = field[1], claimed_at = field[2], expires = field[3], run = field[4],
    solo = field[5], renewed = field[6], not_before = field[7], settled_fence = field[8], settled_nonce = field[9],
    first = field[10], last = field[11], key = field[12], blocked = field[13], reason = field[14], indexed = field[15],
  }
end

local function pack_lane(lane)
  return lane.nonce .. cmsgpack.pack({
    lane.fence, lane.claimed_at, lane.expires, lane.run, lane.solo, lane.renewed, lane.not_before,
    lane.settled_fence, lane.settled_nonce, lane.first, lane.last, lane.key, lane.blocked, lane.reason, lane.indexed,
  })
end

-- How a token stands: 'C' current, 'A' settled before, 'F' fenced.
local function standing(unit, lane, fence, nonce)
  if lane then
    if lane.nonce == nonce and lane.fence == fence then
      return 'C'
    end
    if lane.settled_nonce == nonce and lane.settled_fence == fence then
      return 'A'
    end
    return 'F'
  end
  return call('HGET', ended_key, unit) == format('%.0f', fence) .. nonce and 'A' or 'F'
end

local function next_sequence()
  return call('HINCRBY', state_key, 'sequence', 1)
end

-- Ends a claim of a lane, whatever became of it.
local function free(unit, lane)
  if unit >= PARKED and lane.nonce ~= FREE then
    call('SREM', claim_key(lane.nonce), unit)
    call('HINCRBY', state_key, 'parked:claimed', -lane.run)
  end
  lane.nonce, lane.run, lane.solo, lane.renewed = FREE, 0, 0, 0
end

-- Stores a parked key after a change. An empty one ends; one that waits stands in the order of its times.
local function keep_parked(unit, lane)
  if lane.indexed ~= '' then
    call('ZREM', ids_key, lane.indexed)
    lane.indexed = ''
  end
  local head = call('LINDEX', list_of(unit), 0)
  if not head and lane.blocked == '' then
    call('HDEL', parked_key, lane.key)
    call('HDEL', state_key, unit)
    call('ZREM', units_key, unit)
    call('ZREM', due_key, unit)
    call('ZREM', suspects_key, unit)
    if lane.settled_fence > 0 then
      -- A settlement may be repeated after its key has ended. The last 1,024 are enough: a relay repeats at once.
      call('HSET', ended_key, unit, format('%.0f', lane.settled_fence) .. lane.settled_nonce)
      if call('RPUSH', ended_order_key, unit) > 1024 then
        call('HDEL', ended_key, call('LPOP', ended_order_key))
      end
    end
    return
  end
  if lane.blocked ~= '' then
    call('ZREM', due_key, unit)
  else
    local inner, _, _, _, due = open(head)
    lane.not_before = math.max(lane.not_before, due)
    lane.indexed = id_of(inner) .. 'p' .. unit
    call('ZADD', ids_key, 0, lane.indexed)
    call('ZADD', due_key, lane.not_before, unit)
  end
  call('HSET', state_key, unit, pack_lane(lane))
end

-- Parks a key with these records, or adds them behind those that are parked. `blocked` names the dead letter that holds it.
local function park(key, records, blocked, reason)
  local unit = tonumber(call('HGET', parked_key, key) or false)
  local lane
  if unit then
    lane = load_lane(call('HGET', state_key, unit))
  else
    unit = PARKED + next_sequence()
    lane = load_lane(false)
    lane.key = key
    call('HSET', parked_key, key, unit)
    call('ZADD', units_key, unit, unit)
  end
  if #records > 0 then
    each_chunk('RPUSH', list_of(unit), records)
    call('HINCRBY', state_key, 'parked:records', #records)
  end
  if blocked ~= '' then
    lane.blocked = blocked
  end
  if lane.nonce == FREE then
    lane.reason = reason
    keep_parked(unit, lane)
  end
end

-- Makes a dead letter and answers its number.
local function bury(inner, attempts, strikes, reason, now)
  local number = next_sequence()
  call('HSET', records_key, number, seal(inner, attempts, strikes, 0, 0))
  call('HSET', reasons_key, number, reason)
  call('ZADD', dead_key, now, number)
  call('ZADD', ids_key, 0, id_of(inner) .. 'd' .. number)
  return number
end

-- Lists that are filled at their tails, each with as few commands as possible. Anyone may push at a tail.
local tails = {}
local function push_back(unit, record)
  local tail = tails[unit]
  if tail then
    tail[#tail + 1] = record
  else
    tails[unit] = { record }
  end
end

local function flush_tails()
  for unit, records in pairs(tails) do
    each_chunk('RPUSH', list_of(unit), records)
    if unit >= PARKED then
      call('HINCRBY', state_key, 'parked:records', #records)
    end
  end
  tails = {}
end

-- Sorts scheduled messages that producers have appended: those not due yet wait in the order of their times.
local function sort_inbox(now, lanes, count)
  local arrived = call('LRANGE', inbox_key, 0, count - 1)
  if #arrived == 0 then
    return
  end
  local times, bodies, names = {}, {}, {}
  local number = call('HINCRBY', state_key, 'sequence', #arrived) - #arrived
  for index = 1, #arrived do
    local record = arrived[index]
    local inner = open(record)
    local due = deliver_at_of(inner)
    number = number + 1
    if due <= now then
      push_back(home_of(inner, lanes, number), record)
    else
      times[#times + 1], times[#times + 2] = due, number
      bodies[#bodies + 1], bodies[#bodies + 2] = number, record
      names[#names + 1], names[#names + 2] = 0, id_of(inner) .. 'l' .. number
    end
  end
  each_chunk('ZADD', later_key, times, 2)
  each_chunk('HSET', records_key, bodies, 2)
  each_chunk('ZADD', ids_key, names, 2)
  flush_tails()
  call('LTRIM', inbox_key, #arrived, -1)
end
