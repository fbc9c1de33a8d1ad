-- The place and the record of such a publication. `hub` has what a hub said of all of them
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
  hub[10] or life,
  hub[4], hub[5] .. ':{' .. quoted .. '}', '-', number, record, tostring(entries), hub[8],
  hub.prefix and topic, hub.prefix, hub[5],
}
