-- Where a topic is. KEYS: place, log. ARGV: a new epoch, the run of this Redis, milliseconds, whether it loses nothing
local place = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'life', 'began', 'before')
local epoch, offset, began, before = place[1], tonumber(place[2] or 0), tonumber(place[4] or 0), place[5] or ''
local function begin(at, after)
  epoch, began, before = ARGV[1], at, after
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset, 'life', ARGV[2], 'began', began, 'before', before)
end
if not epoch then
  redis.call('DEL', KEYS[2])
  begin(offset, '')
elseif place[3] ~= ARGV[2] then
  -- The eight epochs before, with their last offsets.
  local _, count = string.gsub(before, ' ', ' ')
  if count == 8 then before = string.gsub(before, '^%S+ ', '') end
  begin(offset, ARGV[4] == '1' and before .. epoch .. ':' .. offset .. ' ' or '')
end
