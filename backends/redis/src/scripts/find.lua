-- Everything that is stored under one id and not pending. ARGV: clock offset, lanes, id. Answers as `list` does.
sort_inbox(clock(ARGV[1]), tonumber(ARGV[2]), CHUNK)
local id = ARGV[3]
local answer = { '', '' }
local names = call('ZRANGEBYLEX', ids_key, '[' .. id, '[' .. id .. '\255', 'LIMIT', 0, 100)
for index = 1, #names do
  local kind, number = sub(names[index], 17, 17), sub(names[index], 18)
  local group
  if kind == 'p' then
    local record = call('LINDEX', list_of(number), 0)
    local packed = call('HGET', state_key, number)
    if record and packed then
      local lane = load_lane(packed)
      group = { record, format('%.0f', lane.not_before), '', lane.reason, '' }
    end
  else
    local record = call('HGET', records_key, number)
    local time = call('ZSCORE', kind == 'd' and dead_key or later_key, number)
    if record and time then
      local dead = kind == 'd'
      group = { record, dead and '' or time, dead and time or '', call('HGET', reasons_key, number) or '', number }
    end
  end
  for _, value in ipairs(group or {}) do
    answer[#answer + 1] = value
  end
end
return answer
