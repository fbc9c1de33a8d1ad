-- KEYS: the leases by their ends. ARGV: channel, command, lease, milliseconds, a word, the run of this Redis. Each server
-- finds the leases that ran out.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], lease)
  redis.call(ARGV[2], ARGV[1], lease)
end
-- Behind a write that needs no memory, also a full Redis takes a lease: without one, all who are present would be gone.
local known = redis.call('ZREM', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[3])
-- A word that this Redis has until its data are gone, by whoever came first.
local word = redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')[1]
if not word then
  word = ARGV[5]
  redis.call('ZADD', KEYS[1], '+inf', word)
end
-- And one for the life of its data here: another master may have had them since this one was it, in the same run.
local run, life = string.match(redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')[2] or '', '~(%S+) (%S+)')
if run ~= ARGV[6] then
  if run then redis.call('ZREM', KEYS[1], '~' .. run .. ' ' .. life) end
  life = ARGV[5]
  redis.call('ZADD', KEYS[1], '+inf', '~' .. ARGV[6] .. ' ' .. life)
end
return {1 - known, word, life}
