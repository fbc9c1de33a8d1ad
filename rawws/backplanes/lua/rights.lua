-- Names what the user of this connection may not do. ARGV: a key, a channel, and commands of that
local missing, key, channel = {}, ARGV[1], ARGV[2]
local function need(name, ...)
  if not redis.acl_check_cmd(name, ...) then table.insert(missing, string.lower(name)) end
end
-- Redis 6.2 does not say.
if not redis.acl_check_cmd then return missing end
for _, name in ipairs({'HGETALL', 'HKEYS', 'HLEN', 'DEL'}) do need(name, key) end
for _, name in ipairs({'HDEL', 'HGET', 'HMGET'}) do need(name, key, 'f') end
need('HSET', key, 'f', 'v')
need('XADD', key, '1-0', 'f', 'v')
need('XRANGE', key, '-', '+')
need('XREVRANGE', key, '+', '-')
need('ZADD', key, '1', 'm')
need('ZREM', key, 'm')
need('ZRANGE', key, '0', '-1')
-- In a cluster, there are no patterns.
if ARGV[6] == 'PUBLISH' then need('ZMSCORE', key, 'm') end
need('ZRANGEBYSCORE', key, '0', '1')
need('PEXPIRE', key, '1')
need('EVALSHA', '0', '1', key)
need('TIME')
need('INFO')
need('PING')
for number = 3, #ARGV do
  if string.find(ARGV[number], 'PUBLISH') then need(ARGV[number], channel, 'm') else need(ARGV[number], channel) end
end
return missing
