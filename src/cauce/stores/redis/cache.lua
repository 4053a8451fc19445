-- Cached answers of several processes within one bound of bytes: what does not fit makes room by letting go of the oldest.
--
-- KEYS: the answer, then the index of all of them: `order` and `over`, sorted sets of names, by when they were kept (a number that
--   grows) and by when their time is over (ms), and `sizes`, a hash of bytes by name, with `total` and `newest`, the last number.
-- ARGV: operation, what stands before the names of answers, the name of this one, then what the operation needs.
-- Gives the bytes of all.

local answer, order, over, sizes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, before, name = ARGV[1], ARGV[2], ARGV[3]

-- Bytes that an answer takes beside its own, with its key and its places in the index.
local ENTRY = 560

-- Answers that one call lets go of at most because their time is over, and because there is no room: others wait for it.
local EXPIRED, MOST = 100, 2000

redis.call('HSETNX', sizes, 'total', 0)
redis.call('HSETNX', sizes, 'newest', 0)
local count = redis.call('ZCARD', order)
if redis.call('ZCARD', over) ~= count or redis.call('HLEN', sizes) ~= count + 2 then
    -- The server has let go of a part of the index, for want of memory: what it told of goes when its time is over.
    redis.call('UNLINK', order, over, sizes)
    redis.call('HSET', sizes, 'total', 0, 'newest', 0)
end

local total = tonumber(redis.call('HGET', sizes, 'total'))

local function forget(one)
    local size = redis.call('HGET', sizes, one)
    if size then
        total = total - tonumber(size)
        redis.call('HDEL', sizes, one)
        redis.call('ZREM', order, one)
        redis.call('ZREM', over, one)
    end
    redis.call('UNLINK', before .. one)
end

local function put(value, keep, most)
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    for _, one in ipairs(redis.call('ZRANGEBYSCORE', over, '-inf', now, 'LIMIT', 0, EXPIRED)) do forget(one) end
    local size = #value + ENTRY
    if size > most then return end
    for _ = 1, MOST do
        if total + size <= most then break end
        local gone = redis.call('ZRANGEBYSCORE', over, '-inf', now, 'LIMIT', 0, 1)
        if #gone == 0 then gone = redis.call('ZRANGE', order, 0, 0) end
        forget(gone[1])
    end
    -- The bound has become much smaller: later ones find room.
    if total + size > most then return end
    redis.call('SET', answer, value, 'PX', keep)
    redis.call('ZADD', order, redis.call('HINCRBY', sizes, 'newest', 1), name)
    redis.call('ZADD', over, now + keep, name)
    redis.call('HSET', sizes, name, size)
    total = total + size
    if redis.call('PTTL', sizes) < keep then
        -- A cache that nobody uses any more goes as a whole.
        for _, key in ipairs({ order, over, sizes }) do redis.call('PEXPIRE', key, keep + 1000) end
    end
end

forget(name)
if operation == 'put' then
    -- value, milliseconds it is kept, bytes of all at most
    put(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
end
redis.call('HSET', sizes, 'total', string.format('%.0f', total))
return total
