-- KEYS: the leases by their ends. ARGV: channel, lease, milliseconds. Each server finds the leases that ran out.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], lease)
  redis.call('PUBLISH', ARGV[1], lease)
end
return redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
