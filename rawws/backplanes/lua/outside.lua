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
