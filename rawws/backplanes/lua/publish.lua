-- ARGV: ..., command, channel, server, number, record, entries, milliseconds
local field = 's ' .. ARGV[8]
local last = redis.call('HGET', KEYS[1], field)
if last and tonumber(last) >= tonumber(ARGV[9]) then
  -- Behind the name of the server may stand what goes beside the message.
  -- Not all that is held: those sent again may be thousands.
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
    local server, number = string.match(entry[2][2], '^([^ ,]*)[^ ]* (%d+) ')
    if server == ARGV[8] and number == tostring(ARGV[9]) then
      return {epoch, tonumber(string.match(entry[1], '%d+'))}
    end
  end
  return {epoch, 0}
end
-- A full Redis refuses the first of what it would have to hold, or all.
if not place[1] then
  begin(0, before .. epoch .. ':0 ')
  redis.call('DEL', KEYS[2])
end
offset = offset + 1
-- A log that is none is refused before the place is given.
if ARGV[11] ~= '0' then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[11], offset .. '-0', 'r', ARGV[10], 't', now())
  redis.call('PEXPIRE', KEYS[2], ARGV[12])
end
redis.call('HSET', KEYS[1], 'offset', offset, field, ARGV[9])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if not last and redis.call('HLEN', KEYS[1]) > 1000 then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 2) == 's ' and name ~= field then redis.call('HDEL', KEYS[1], name) end
  end
end
redis.call(ARGV[6], ARGV[7], '=' .. epoch .. ' ' .. offset .. ' ' .. ARGV[10])
return {epoch, offset}
