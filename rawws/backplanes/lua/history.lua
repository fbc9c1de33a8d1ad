-- ARGV: ..., epoch, offset, milliseconds for which a record is held.
-- Who was beyond the place where this run began saw what is lost: so all may have missed it.
local place = place_at(KEYS[1])
local asked, at = ARGV[6], tonumber(ARGV[7])
local last = asked == place.epoch and place.offset
  or tonumber(string.match(' ' .. place.before, ' ' .. asked .. ':(%d+) '))
if last and at > last then
  last = nil
  if place.known then begin(place, place.began, '') end
end
local answer = {place.epoch, place.offset, place.began, place.before}
if last or asked == '' then
  answer[5], answer[6] = {}, now()
  local oldest = answer[6] - ARGV[8]
  for _, entry in ipairs(place.known and redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+') or {}) do
    -- Newer records keep the stream for longer than its first ones. What servers of before wrote has no time.
    if (tonumber(entry[2][4]) or oldest) >= oldest then table.insert(answer[5], entry) end
  end
end
return answer
