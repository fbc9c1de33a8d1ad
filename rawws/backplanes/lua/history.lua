-- ARGV: ..., epoch, offset, milliseconds for which a record is held.
-- Who was beyond the place where this run began saw what is lost: so all may have missed it.
local asked, at = ARGV[6], tonumber(ARGV[7])
local last = asked == epoch and offset or tonumber(string.match(' ' .. before, ' ' .. asked .. ':(%d+) '))
if last and at > last then
  last = nil
  if place[1] then begin(began, '') end
end
local answer = {epoch, offset, began, before}
if last or asked == '' then
  answer[5], answer[6] = {}, now()
  local oldest = answer[6] - ARGV[8]
  for _, entry in ipairs(place[1] and redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+') or {}) do
    -- Newer records keep the stream for longer than its first ones. What servers of before wrote has no time.
    if (tonumber(entry[2][4]) or oldest) >= oldest then table.insert(answer[5], entry) end
  end
end
return answer
