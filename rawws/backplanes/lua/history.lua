-- ARGV: ..., epoch, offset. Who was beyond the place where this run began saw what is lost: so all may have missed it.
local asked, at = ARGV[6], tonumber(ARGV[7])
local last = asked == epoch and offset or tonumber(string.match(' ' .. before, ' ' .. asked .. ':(%d+) '))
if last and at > last then
  last = nil
  if place[1] then begin(began, '') end
end
local answer = {epoch, offset, began, before}
if last or asked == '' then answer[5] = place[1] and redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+') or {} end
return answer
