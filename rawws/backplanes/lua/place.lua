-- Where a topic is. KEYS: place, log. ARGV: a new epoch, the run of this Redis, milliseconds, whether it loses nothing,
-- a word of this Redis
local place = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'life', 'began', 'before')
local epoch, offset, began, before = place[1], tonumber(place[2] or 0), tonumber(place[4] or 0), place[5] or ''
local function now()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local function begin(at, after)
  epoch, began, before = ARGV[1], at, after
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset, 'life', ARGV[2], 'began', began, 'before', before)
end
-- A topic that was never published to has no key. All give its epoch one name, which changes with each half of the time
-- for which a place is remembered: so nobody goes on from one behind which a place came and was forgotten.
local function unborn(ago)
  local half = math.floor(now() * 2 / ARGV[3]) - ago
  return string.sub(redis.sha1hex(ARGV[5] .. ' ' .. string.format('%.0f', half)), 1, 12)
end
if not epoch then
  epoch, before = unborn(0), unborn(1) .. ':0 '
elseif place[3] ~= ARGV[2] then
  -- The eight epochs before, with their last offsets.
  local _, count = string.gsub(before, ' ', ' ')
  if count >= 8 then before = string.gsub(before, '^%S+ ', '') end
  begin(offset, ARGV[4] == '1' and before .. epoch .. ':' .. offset .. ' ' or '')
end
