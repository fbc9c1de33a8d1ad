-- ARGV: ..., command, channel, server, number, record, entries, milliseconds; and, where the patterns for it are known
-- here, the topic, the prefix and that of channels, else nothing
local field = 's ' .. ARGV[8]
local place = place_at(KEYS[1], field)
local last = place.value
local patterns = ARGV[13] and patterns_for(ARGV[13], ARGV[14], ARGV[15]) or {}
local function answer(offset)
  local told = {place.epoch, offset}
  for _, each in ipairs(patterns) do
    if each.place then
      for _, word in ipairs({each.name, each.place.epoch, each.place.offset}) do table.insert(told, word) end
    end
  end
  return told
end
local function locate(pattern)
  pattern.place = place_at(pattern.key)
  if not pattern.place.known then
    -- It is followed, and lost what it had.
    begin(pattern.place, 0, '')
    redis.call('PEXPIRE', pattern.key, ARGV[3])
  end
  return pattern.place
end
if last and tonumber(last) >= tonumber(ARGV[9]) then
  -- All of them are behind what has its place.
  for _, each in ipairs(patterns) do locate(each) end
  -- Behind the name of the server may stand what goes beside the message.
  -- Not all that is held: those sent again may be thousands.
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
    local server, number = string.match(entry[2][2], '^([^ ,]*)[^ ]* (%d+) ')
    if server == ARGV[8] and number == tostring(ARGV[9]) then return answer(tonumber(string.match(entry[1], '%d+'))) end
  end
  return answer(0)
end
-- `kept` stands beside the place, `...` beside the record.
local function hold(place, log, kept, ...)
  -- A log that is none is refused before the place is given.
  if ARGV[11] ~= '0' then
    redis.call('XADD', log, 'MAXLEN', ARGV[11], (place.offset + 1) .. '-0', 'r', ARGV[10], 't', now(), ...)
    redis.call('PEXPIRE', log, ARGV[12])
  end
  place.offset = place.offset + 1
  redis.call('HSET', place.key, 'offset', place.offset, unpack(kept))
end
-- A full Redis refuses the first of what it would have to hold, or all.
if not place.known then
  begin(place, 0, place.before .. place.epoch .. ':0 ')
  redis.call('DEL', KEYS[2])
end
hold(place, KEYS[2], {field, ARGV[9]})
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if not last and redis.call('HLEN', KEYS[1]) > 1000 then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 2) == 's ' and name ~= field then redis.call('HDEL', KEYS[1], name) end
  end
end
for _, each in ipairs(patterns) do
  -- What is wrong with the log of a pattern is no fault of the topic: those who follow it find out.
  if pcall(function() hold(locate(each), each.log, {}, 'n', ARGV[13]) end) then
    redis.call(ARGV[6], each.channel,
      '*' .. each.place.epoch .. ' ' .. each.place.offset .. ' ' .. quote(ARGV[13]) .. ' ' .. ARGV[10])
  else
    each.place = nil
    redis.call('ZREM', ARGV[14] .. ':patterns', each.name)
    redis.call(ARGV[6], each.channel, '! - it cannot be written')
  end
end
redis.call(ARGV[6], ARGV[7], '=' .. place.epoch .. ' ' .. place.offset .. ' ' .. ARGV[10])
return answer(place.offset)
