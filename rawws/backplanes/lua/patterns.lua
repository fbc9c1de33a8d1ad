-- The patterns for a topic that somebody follows, or did lately (rawws/topics/patterns.py).
local function quote(text)
  return (string.gsub(text, '[^%w_.~-]', function(octet) return string.format('%%%02X', string.byte(octet)) end))
end
local function patterns_for(topic, prefix, channels)
  local found, followed = {}, prefix .. ':patterns'
  -- Mostly there are none.
  if not redis.call('ZRANGE', followed, 0, 0)[1] then return found end
  local names, at = {'\0*'}, 0
  for _ = 1, 16 do
    at = string.find(topic, '[/:.]', at + 1)
    if not at then break end
    table.insert(names, '\0' .. string.sub(topic, 1, at) .. '*')
  end
  local time = redis.call('TIME')
  for index, ends in ipairs(redis.call('ZMSCORE', followed, unpack(names))) do
    if ends and tonumber(ends) > time[1] * 1000 then
      local quoted = '{' .. quote(names[index]) .. '}'
      local base = prefix .. ':' .. quoted
      table.insert(found, {
        name = names[index], key = base .. ':place', log = base .. ':log', channel = channels .. ':' .. quoted,
      })
    end
  end
  return found
end
