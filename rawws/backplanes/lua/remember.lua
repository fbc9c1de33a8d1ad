-- What is read is remembered. This is a write that needs no memory: behind it, also a full Redis takes what follows.
redis.call('PEXPIRE', KEYS[1], ARGV[3])
