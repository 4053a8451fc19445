-- What the streams take that have ended, and which of them go when all take more than they may.
--
-- KEYS: `ended` and `gone`, sorted sets of streams: by when they expire, and by when those have of which only the id is left; `sizes`, a
--   hash of bytes by stream, with `total` beside. All with one hash tag.
-- ARGV: operation, now in seconds or '' for the server's own time, then what the operation needs.

local ended, gone, sizes = KEYS[1], KEYS[2], KEYS[3]
local operation, now = ARGV[1], tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Seconds that a stream which has expired is remembered, and the bytes it takes meanwhile with its place here.
local KEEP, TOMBSTONE = 7 * 86400, 500

-- The part of the bound that those may take: beyond it the oldest ones go, before streams that can be read.
local PART = 0.25

redis.call('HSETNX', sizes, 'total', 0)
if redis.call('HLEN', sizes) ~= redis.call('ZCARD', ended) + 1 then
    -- The server has let go of one of the two, for want of memory: streams that were counted go when their time is over.
    redis.call('UNLINK', sizes)
    redis.call('HSET', sizes, 'total', 0)
    for _, row in ipairs(redis.call('ZRANGE', ended, 0, -1)) do redis.call('HSET', sizes, row, 0) end
end

local function resize(row, bytes)
    local before = tonumber(redis.call('HGET', sizes, row) or '0')
    redis.call('HINCRBY', sizes, 'total', string.format('%.0f', bytes - before))
    redis.call('HSET', sizes, row, string.format('%.0f', bytes))
end

if operation == 'ended' then
    -- stream, seconds until it expires, bytes
    if not redis.call('ZSCORE', ended, ARGV[3]) then
        redis.call('ZADD', ended, string.format('%.6f', now + tonumber(ARGV[4])), ARGV[3])
        resize(ARGV[3], tonumber(ARGV[5]))
    end
    return 0
end

if operation == 'gone' then
    -- stream, whether its id is left
    if redis.call('ZREM', ended, ARGV[3]) == 1 then
        resize(ARGV[3], 0)
        redis.call('HDEL', sizes, ARGV[3])
    end
    if ARGV[4] == '1' then redis.call('ZADD', gone, string.format('%.6f', now), ARGV[3]) end
    redis.call('ZREMRANGEBYSCORE', gone, '-inf', string.format('%.6f', now - KEEP))
    return 0
end

if operation == 'room' then
    -- bytes of all at most, those of open streams, how many go at most; gives how many are due now, and of which not even the id stays
    local most, limit = tonumber(ARGV[3]), tonumber(ARGV[5])
    redis.call('ZREMRANGEBYSCORE', gone, '-inf', string.format('%.6f', now - KEEP))
    local left = redis.call('ZCARD', gone)
    local excess = tonumber(redis.call('HGET', sizes, 'total')) + tonumber(ARGV[4]) + left * TOMBSTONE - most
    local due, forgotten = 0, {}
    local old = left - math.floor(PART * most / TOMBSTONE)
    if excess > 0 and old > 0 then
        forgotten = redis.call('ZRANGE', gone, 0, math.min(old, limit) - 1)
        redis.call('ZREMRANGEBYRANK', gone, 0, #forgotten - 1)
        excess = excess - old * TOMBSTONE
    end
    if excess > 0 then
        local later = '(' .. string.format('%.6f', now)
        for _, row in ipairs(redis.call('ZRANGEBYSCORE', ended, later, '+inf', 'LIMIT', 0, limit)) do
            if excess <= 0 then break end
            excess = excess - tonumber(redis.call('HGET', sizes, row))
            -- What is on its way out counts as gone, whoever sees to it.
            resize(row, 0)
            redis.call('ZADD', ended, string.format('%.6f', now), row)
            due = due + 1
        end
    end
    return { due, forgotten }
end

return redis.error_reply('unknown operation')
