-- In a cluster, whoever asks finds the node of a topic by its key.
local wanted = prefix .. ':{' .. quote(topic) .. '}:place'
if keys[1] ~= wanted then return redis.error_reply('ERR the key of this topic is ' .. wanted) end
