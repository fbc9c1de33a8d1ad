-- KEYS: place and log of a pattern. ARGV: a new epoch, the run of this Redis, milliseconds, two words for others; the key
-- of the patterns that are followed, by when that is over, and the pattern. Tells whether its log is a new one.
local age, followed, pattern = ARGV[3], ARGV[6], ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZMSCORE', followed, pattern)[1]
local known = ends and tonumber(ends) > now and redis.call('HMGET', KEYS[1], 'epoch')[1]
if not known then
  -- What came meanwhile has no place in it.
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'offset', 0, 'life', ARGV[2], 'began', 0, 'before', '')
  redis.call('DEL', KEYS[2])
end
redis.call('ZADD', followed, string.format('%.0f', now + age), pattern)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', followed, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', followed, name)
end
redis.call('PEXPIRE', followed, age)
redis.call('PEXPIRE', KEYS[1], age)
return known and 0 or 1
