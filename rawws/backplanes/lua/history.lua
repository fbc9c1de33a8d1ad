-- ARGV: ..., epoch, offset. Who was beyond the place where this run began saw what is lost: so all may have missed it.
local asked, at = ARGV[5], tonumber(ARGV[6])
local last = asked == epoch and offset or tonumber(string.match(' ' .. before, ' ' .. asked .. ':(%d+) '))
if last and at > last then
  last = nil
  begin(began, '')
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local answer = {epoch, offset, began, before}
if last or asked == '' then answer[5] = redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+') end
return answer
