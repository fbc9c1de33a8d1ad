-- What the last hub that came said of all of them
local hub = redis.call('HMGET', prefix .. ':hub', 'life', 'keeps', 'remember', 'verb', 'channels', 'count', 'size', 'age',
  'run', 'word')
if not hub[1] then return redis.error_reply('ERR no hub with this prefix was here yet') end
-- Here its patterns are known, too.
hub.prefix = prefix
