-- ARGV: ..., command, channel, server, number, record, entries, milliseconds
local field = 's ' .. ARGV[7]
local last = redis.call('HGET', KEYS[1], field)
if last and tonumber(last) >= tonumber(ARGV[8]) then
  local origin = ARGV[7] .. ' ' .. ARGV[8] .. ' '
  -- Not all that is held: those sent again may be thousands.
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
    if string.sub(entry[2][2], 1, #origin) == origin then
      return {epoch, tonumber(string.match(entry[1], '%d+'))}
    end
  end
  return {epoch, 0}
end
if not last and redis.call('HLEN', KEYS[1]) > 1000 then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 2) == 's ' then redis.call('HDEL', KEYS[1], name) end
  end
end
offset = offset + 1
-- A full Redis refuses the first of what it would have to hold, or all.
redis.call('HSET', KEYS[1], 'offset', offset, field, ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[10] ~= '0' then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[10], offset .. '-0', 'r', ARGV[9])
  redis.call('PEXPIRE', KEYS[2], ARGV[11])
end
redis.call(ARGV[5], ARGV[6], '=' .. epoch .. ' ' .. offset .. ' ' .. ARGV[9])
return {epoch, offset}
