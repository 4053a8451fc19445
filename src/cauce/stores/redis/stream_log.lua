-- One operation on one stream, atomically.
-- KEYS: meta (hash), log (stream), attempts (hash); all with one hash tag.
-- ARGV: operation, now in seconds or '' for the server's own time, then what the operation needs.
-- meta: principal id user wire request hash policy asked created retention state epoch node lease tail bytes cancel upstream mark ended
-- unsettled
-- of one that has expired: principal id state epoch tail
-- of one that was cancelled before it was made: early (the reason) until

local meta, log, attempts = KEYS[1], KEYS[2], KEYS[3]
local operation, now = ARGV[1], tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Milliseconds after which a stream that nobody writes or sweeps is forgotten.
local KEEP = 7 * 86400 * 1000

local OPEN = { queued = true, running = true, recovering = true }

local function keep(milliseconds)
    redis.call('PEXPIRE', meta, milliseconds)
    redis.call('PEXPIRE', log, milliseconds)
    redis.call('PEXPIRE', attempts, milliseconds)
end

local function lease(seconds)
    return string.format('%.6f', now + tonumber(seconds))
end

if operation == 'create' then
    -- node, lease, size, first record, then fields and values of meta
    -- gives whether it was made by this, and the reason of its cancel
    local same = redis.call('HMGET', meta, 'node', 'epoch', 'tail', 'nonce', 'state', 'cancel', 'early', 'until')
    if same[5] then
        local ours = same[1] == ARGV[3] and same[2] == '1' and same[3] == '1' and same[4] == ARGV[7]
        return { ours and 1 or 0, same[6] }
    end
    local early = same[7] and tonumber(same[8]) > now and same[7]
    if same[7] then redis.call('DEL', meta) end
    redis.call('HSET', meta, 'node', ARGV[3], 'lease', lease(ARGV[4]), 'bytes', ARGV[5], 'nonce', ARGV[7],
        'state', 'queued', 'epoch', '1', 'tail', '1', unpack(ARGV, 8))
    if early then redis.call('HSET', meta, 'cancel', early) end
    redis.call('XADD', log, '1-0', 'e', '1', 'd', ARGV[6])
    keep(KEEP)
    return { 1, early }
end

local known = redis.call('HMGET', meta, 'epoch', 'tail', 'state', 'cancel', 'lease', 'bytes', 'retention')
local epoch, tail, state, cancel = known[1], tonumber(known[2] or '0'), known[3], known[4]

if operation == 'append' then
    -- epoch, tail, tried before, lease, state, states it may come from, bytes, upstream, mark, whether it ends a cancelled stream,
    -- number of records, records, then number and row of attempts; gives of an ended stream the seconds it is kept for, the bytes of
    -- its records and its request, and whether its answer is still to be copied
    local kept = known[7] or '0'
    local n = tonumber(ARGV[13])
    if not epoch or epoch ~= ARGV[3] then return { 'fenced', '' } end
    local expected = tonumber(ARGV[4])
    local function written(bytes)
        local told = redis.call('HMGET', meta, 'asked', 'unsettled')
        return { 'ok', kept, bytes, told[1] or '0', told[2] or '0' }
    end
    if ARGV[5] == '1' and n > 0 and tail == expected + n then return written(known[6] or '0') end
    if tail ~= expected or not OPEN[state] then return { 'fenced', '' } end
    local to = ARGV[7]
    if cancel and ARGV[12] ~= '1' then return { 'cancelled', '' } end
    if to ~= '' and not string.find(ARGV[8], state, 1, true) then return { 'illegal', state } end
    for i = 1, n do
        redis.call('XADD', log, (expected + i) .. '-0', 'e', epoch, 'd', ARGV[13 + i])
    end
    for i = 14 + n, #ARGV, 2 do
        redis.call('HSET', attempts, ARGV[i], ARGV[i + 1])
    end
    local bytes = string.format('%.0f', tonumber(known[6]) + tonumber(ARGV[9]))
    redis.call('HSET', meta, 'tail', expected + n, 'lease', lease(ARGV[6]), 'bytes', bytes)
    if to ~= '' then redis.call('HSET', meta, 'state', to) end
    if ARGV[10] ~= '' then redis.call('HSET', meta, 'upstream', ARGV[10]) end
    if ARGV[11] == '0' then
        redis.call('HSETNX', meta, 'mark', '0')
    elseif ARGV[11] ~= '' then
        redis.call('HSET', meta, 'mark', ARGV[11])
    end
    if to ~= '' and not OPEN[to] then
        redis.call('HSET', meta, 'ended', string.format('%.6f', now))
        keep(KEEP + math.floor(tonumber(kept) * 1000))
        return written(bytes)
    end
    keep(KEEP)
    return { 'ok', kept }
end

if operation == 'cancel' then
    -- reason, seconds that it is remembered where there is no stream yet; gives whether there is
    if not epoch then
        redis.call('HSET', meta, 'early', ARGV[3], 'until', lease(ARGV[4]))
        redis.call('PEXPIRE', meta, tonumber(ARGV[4]) * 1000)
        return 0
    end
    if OPEN[state] and not cancel then redis.call('HSET', meta, 'cancel', ARGV[3]) end
    return 1
end

if operation == 'claim' then
    -- epoch as seen, node, lease, tried before
    if not epoch then return {} end
    local ours = ARGV[6] == '1' and epoch == tostring(tonumber(ARGV[3]) + 1)
        and redis.call('HGET', meta, 'node') == ARGV[4]
    if not ours then
        if epoch ~= ARGV[3] or not OPEN[state] or tonumber(known[5]) > now then return {} end
        if state ~= 'queued' then state = 'recovering' end
        redis.call('HSET', meta, 'epoch', tonumber(epoch) + 1, 'node', ARGV[4], 'lease', lease(ARGV[5]), 'state', state)
        if redis.call('HGET', meta, 'mark') == '-1' then redis.call('HSET', meta, 'mark', tail) end
    end
    return { tail, state, tonumber(known[6]), cancel and 1 or 0 }
end

if operation == 'renew' then
    -- epoch, lease
    if epoch ~= ARGV[3] or not OPEN[state] then return 'lost' end
    redis.call('HSET', meta, 'lease', lease(ARGV[4]))
    return cancel and 'cancel' or 'kept'
end

if operation == 'release' then
    -- epoch
    if epoch ~= ARGV[3] or not OPEN[state] then return 0 end
    redis.call('HSET', meta, 'lease', '0')
    return 1
end

if operation == 'seen' then
    if OPEN[state] then redis.call('HSET', meta, 'seen', string.format('%.6f', now)) end
    return 1
end

if operation == 'unseen' then
    local seen = redis.call('HGET', meta, 'seen')
    return seen and string.format('%.6f', now - tonumber(seen)) or nil
end

local function expire()
    local named = redis.call('HMGET', meta, 'principal', 'id')
    redis.call('DEL', meta, log, attempts)
    redis.call('HSET', meta, 'principal', named[1], 'id', named[2], 'state', 'expired', 'epoch', epoch, 'tail', tail)
    redis.call('PEXPIRE', meta, KEEP)
end

if operation == 'expire' then
    -- gives 1, or 2 if it had expired before
    if not epoch or OPEN[state] then return 0 end
    if state == 'expired' then return 2 end
    expire()
    return 1
end

if operation == 'settle' then
    if epoch and not OPEN[state] then redis.call('HDEL', meta, 'unsettled') end
    return 1
end

if operation == 'erase' then
    -- reason; gives 'deleted', 'open' or 'none', and its id
    if not epoch or state == 'expired' then return { 'none', '' } end
    local id = redis.call('HGET', meta, 'id')
    if OPEN[state] then
        redis.call('HSET', meta, 'cancel', ARGV[3], 'retention', '0')
        return { 'open', id }
    end
    expire()
    return { 'deleted', id }
end

if operation == 'forget' then
    -- what has expired, and a cancel without a stream
    if state == 'expired' or not epoch then redis.call('DEL', meta) end
    return 1
end

return redis.error_reply('unknown operation')
