-- Where a topic is. KEYS: place, log. ARGV: a new epoch, the run of this Redis, milliseconds, whether it loses nothing,
-- a word of this Redis
local function now()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local function begin(place, began, before)
  place.epoch, place.began, place.before = ARGV[1], began, before
  redis.call('HSET', place.key, 'epoch', place.epoch, 'offset', place.offset, 'life', ARGV[2], 'began', began,
    'before', before)
end
-- A topic that was never published to has no key. All give its epoch one name, which changes with each half of the time
-- for which a place is remembered: so nobody goes on from one behind which a place came and was forgotten.
local function unborn(ago)
  local half = math.floor(now() * 2 / ARGV[3]) - ago
  return string.sub(redis.sha1hex(ARGV[5] .. ' ' .. string.format('%.0f', half)), 1, 12)
end
-- `field` is another one that is asked for, its value is `place.value`.
local function place_at(key, field)
  local fields = {'epoch', 'offset', 'life', 'began', 'before', field}
  local epoch, offset, life, began, before, value = unpack(redis.call('HMGET', key, unpack(fields)))
  local place = {
    key = key, known = epoch, epoch = epoch, offset = tonumber(offset or 0), began = tonumber(began or 0),
    before = before or '', value = value,
  }
  if not epoch then
    place.epoch, place.before = unborn(0), unborn(1) .. ':0 '
  elseif life ~= ARGV[2] then
    -- The eight epochs before, with their last offsets.
    local _, count = string.gsub(place.before, ' ', ' ')
    if count >= 8 then place.before = string.gsub(place.before, '^%S+ ', '') end
    begin(place, place.offset, ARGV[4] == '1' and place.before .. epoch .. ':' .. place.offset .. ' ' or '')
  end
  return place
end
