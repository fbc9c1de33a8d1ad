-- For who is no hub, before place and publish. ARGV: the prefix, a topic, a message; and, each of which may be left out
-- or empty, what it is about, the name of an event, and 'json' for a message that is JSON
local prefix, topic, message, about, event, json = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if event and about == '' then about = nil end
local function is_text(octets)
  -- Each character of several bytes becomes one of one, and what is left over is none.
  for _, pattern in ipairs({
    '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]',
    '\244[\128-\143][\128-\191][\128-\191]', '\224[\160-\191][\128-\191]', '\237[\128-\159][\128-\191]',
    '[\225-\236\238\239][\128-\191][\128-\191]', '[\194-\223][\128-\191]',
  }) do octets = string.gsub(octets, pattern, '_') end
  return not string.find(octets, '[\128-\255]')
end
if not message or #ARGV > 6 then
  return redis.error_reply('ERR allowed are a prefix, a topic, a message, a key, an event and json')
end
if topic == '' or #topic > 255 or string.find(topic, '%c') or not is_text(topic) then
  return redis.error_reply('ERR the topic must have 1 to 255 printable bytes of UTF-8')
end
if about and (#about > 255 or not is_text(about)) then
  return redis.error_reply('ERR the key must have up to 255 bytes of UTF-8')
end
if event and (#event > 255 or string.find(event, '%c') or not is_text(event)) then
  return redis.error_reply('ERR the event must have 1 to 255 printable bytes of UTF-8, or be empty')
end
if json and json ~= '' and (json ~= 'json' or not is_text(message) or not pcall(cjson.decode, message)) then
  return redis.error_reply("ERR the last may be 'json', where the message is that")
end
-- What the last hub that came said of all of them.
local hub = redis.call('HMGET', prefix .. ':hub', 'life', 'keeps', 'remember', 'verb', 'channels', 'count', 'size', 'age',
  'run')
if not hub[1] then return redis.error_reply('ERR no hub with this prefix was here yet') end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
-- Of a run that no hub has seen, it is not known.
local life, keeps = hub[9] == run and hub[1] or run, hub[9] == run and hub[2] or '0'
local time = redis.call('TIME')
local quoted = quote(topic)
local base = prefix .. ':{' .. quoted .. '}'
local KEYS = {base .. ':place', base .. ':log'}
-- One origin for all of them: each takes the next number.
local number = tonumber(redis.call('HGET', KEYS[1], 's -') or 0) + 1
local kind = is_text(message) and ' t ' or ' b '
local beside = {}
if json == 'json' then table.insert(beside, '"json":true') end
if event and event ~= '' then table.insert(beside, '"event":"' .. string.gsub(event, '["\\]', '\\%0') .. '"') end
local extra = #beside > 0 and ',' .. quote(table.concat(beside, ',')) or ''
local record = '-' .. extra .. ' ' .. number .. kind .. (about and #about or '-') .. ' ' .. (about or '') .. message
local entries = math.min(hub[6], math.max(1, math.floor(hub[7] / (#record + 64))))
local ARGV = {
  string.sub(redis.sha1hex(life .. time[1] .. ' ' .. time[2] .. topic), 1, 12), life, hub[3],
  keeps,
  redis.call('ZRANGEBYSCORE', prefix .. ':servers', '+inf', '+inf')[1] or life,
  hub[4], hub[5] .. ':{' .. quoted .. '}', '-', number, record, tostring(entries), hub[8], topic, prefix, hub[5],
}
