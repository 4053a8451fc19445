-- All of `ports.limiter` in one script, so that one call looks and debits at once. Time is this server's own, unless it is told.
--
-- KEYS: one per limit; a hash. Beside it `KEY:held`, a sorted set: who is under way, and until when that is believed.
-- ARGV: operation, id, lease (s), channel, at (s), now (s, or empty), node, process, then five per limit: kind, units, a, b, c
--   r  requests a minute      units 1          a interval (s)  b slack (s)
--   t  tokens a minute        units, at most c a interval (s)  b burst     c most
--   c  calls under way        units 1          a most
--   d  units of the calendar  units            a most
-- For `settle` units are `held/used`. `CHANNEL:sums` tells of sums that are begun.
--
-- A sum of the calendar is put together from what each node's ledger knows, once a period, and again where it was lost. Its fields:
--   ends, born, name            when its period ends, when it was begun, and what tells it from an earlier one
--   spent, h, h:ID              units spent, and held by all and by whom
--   n:NODE                      what that node's ledger knew then, by the node's clock, is in `spent`, and what it spends since
--   s:PROCESS, p:PROCESS        that process has said what it holds; and may use the sum
--   l:NODE                      units that the node has spent while what its ledger knows was not in `spent`
--   lost                        somebody knew an earlier one: for GRACE seconds all are waited for
--
-- Figures of `stores.refill`; the rules are those of `stores/inproc/counts.py`.

local KEPT = 62
local GRACE = 1
local ROUNDING = 0.000002
local clock = redis.call('TIME')
local now = tonumber(ARGV[6]) or tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local operation, id, lease, channel, at = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local node, process = ARGV[7], ARGV[8]

local function number(text)
  return tonumber(text or '0') or 0
end

local function shown(figure)
  return string.format('%.9f', figure)
end

local function limit(index)
  local first = 9 + (index - 1) * 5
  return {
    key = KEYS[index], kind = ARGV[first], units = ARGV[first + 1],
    a = tonumber(ARGV[first + 2]), b = tonumber(ARGV[first + 3]), c = tonumber(ARGV[first + 4]),
  }
end

local function fields(key)
  local flat = redis.call('HGETALL', key)
  local found = {}
  for index = 1, #flat, 2 do found[flat[index]] = flat[index + 1] end
  return found
end

-- Let go of those whose lease is over: their node has died.
local function expire(one)
  local gone = redis.call('ZRANGEBYSCORE', one.key .. ':held', '-inf', shown(now), 'LIMIT', 0, 1000)
  for _, member in ipairs(gone) do
    redis.call('ZREM', one.key .. ':held', member)
    if one.kind == 'd' then
      local units = number(redis.call('HGET', one.key, 'h:' .. member))
      redis.call('HINCRBYFLOAT', one.key, 'h', shown(-units))
      redis.call('HDEL', one.key, 'h:' .. member)
    end
  end
end

-- Tokens of the last seconds that still count, and what has to be forgotten of them.
local function counted(state)
  local second, total, old = math.floor(now), 0, {}
  for field, value in pairs(state) do
    local when = tonumber(string.match(field, '^k(%d+)$'))
    if when and second - when >= KEPT then
      old[#old + 1] = field
    elseif when then
      total = total + number(value)
    end
  end
  return total, old
end

local function until_forgotten(state, over)
  local second = math.floor(now)
  for when = second - KEPT + 1, second do
    over = over - number(state['k' .. when])
    if over <= ROUNDING then return when + KEPT - now end
  end
  return KEPT
end

-- Seconds until there may be room; 0: now; -1: nobody can tell; -2: the ledger must be asked.
local function wait_of(one)
  local units = tonumber(one.units)
  if one.kind == 'c' then
    expire(one)
    return redis.call('ZCARD', one.key .. ':held') + 1 <= one.a and 0 or -1
  end
  if one.kind == 'd' then
    expire(one)
    local kept = redis.call('HMGET', one.key, 'ends', 'spent', 'h', 'p:' .. process)
    if number(kept[1]) <= now or not kept[4] then return -2 end
    local wanted, most = number(kept[2]) + units, one.a * (1 + 1e-9)
    if wanted + number(kept[3]) <= most then return 0 end
    return wanted <= most and -1 or number(kept[1]) - now
  end
  local state = fields(one.key)
  local due, wait = number(state.due), 0
  if one.kind == 'r' then
    wait = due - one.b - now
  else
    wait = due + (units - one.b) * one.a - now
    local total, old = counted(state)
    if #old > 0 then redis.call('HDEL', one.key, unpack(old)) end
    if total + units > one.c + ROUNDING then
      wait = math.max(wait, until_forgotten(state, total + units - one.c))
    end
  end
  if now < number(state['until']) and units > number(state.left) then
    wait = math.max(wait, number(state['until']) - now)
  end
  return wait <= ROUNDING and 0 or wait
end

local function take(one)
  local units = tonumber(one.units)
  if one.kind == 'c' or one.kind == 'd' then
    redis.call('ZADD', one.key .. ':held', shown(now + lease), id)
    redis.call('EXPIRE', one.key .. ':held', math.ceil(lease) * 4)
    if one.kind == 'd' then
      redis.call('HINCRBYFLOAT', one.key, 'h', shown(units))
      redis.call('HSET', one.key, 'h:' .. id, shown(units))
    end
    return
  end
  local kept = redis.call('HMGET', one.key, 'due', 'until')
  local due = math.max(number(kept[1]), now) + units * one.a
  redis.call('HSET', one.key, 'due', shown(due))
  if one.kind == 't' then redis.call('HINCRBYFLOAT', one.key, 'k' .. math.floor(now), shown(units)) end
  if now < number(kept[2]) then redis.call('HINCRBYFLOAT', one.key, 'left', shown(-units)) end
  redis.call('EXPIRE', one.key, math.ceil(math.max(due, number(kept[2])) - now) + 2 * KEPT)
end

local function tell(one)
  if redis.call('HDEL', one.key, 'denied') == 1 then redis.call('PUBLISH', channel, one.key) end
end

local function let_go(one)
  if redis.call('ZREM', one.key .. ':held', id) == 1 and one.kind == 'd' then
    local units = number(redis.call('HGET', one.key, 'h:' .. id))
    redis.call('HINCRBYFLOAT', one.key, 'h', shown(-units))
    redis.call('HDEL', one.key, 'h:' .. id)
  end
end

local function spend(one, units)
  local kept = redis.call('HMGET', one.key, 'ends', 'n:' .. node)
  if number(kept[1]) > now and kept[2] then
    redis.call('HINCRBYFLOAT', one.key, 'spent', shown(units))
  else
    -- The node's ledger has it, and will be asked, or has just been.
    redis.call('HINCRBYFLOAT', one.key, 'l:' .. node, shown(units))
    if redis.call('TTL', one.key) < 0 then redis.call('EXPIRE', one.key, 86400) end
  end
end

-- Begin the sum anew: what belonged to an earlier period is over, but for who is under way.
local function begin(one)
  for _, field in ipairs(redis.call('HKEYS', one.key)) do
    if string.match(field, '^[nps]:') then redis.call('HDEL', one.key, field) end
  end
  redis.call('HDEL', one.key, 'lost')
  redis.call('HSET', one.key, 'ends', shown(one.b), 'born', shown(now), 'spent', '0', 'name', clock[1] .. '.' .. clock[2])
end

local function spoken(one)
  local count = 0
  for _, field in ipairs(redis.call('HKEYS', one.key)) do
    if string.match(field, '^s:') then count = count + 1 end
  end
  return count
end

local function correct(one, held, used)
  local more, second = used - held, math.floor(at)
  if more ~= 0 and math.floor(now) - second < KEPT then
    redis.call('HINCRBYFLOAT', one.key, 'k' .. second, shown(more))
  end
  local due = number(redis.call('HGET', one.key, 'due'))
  if more > 0 then
    redis.call('HSET', one.key, 'due', shown(due + more * one.a))
  elseif more < 0 and due > now then
    redis.call('HSET', one.key, 'due', shown(math.max(now, due + more * one.a)))
  end
  redis.call('EXPIRE', one.key, math.ceil(math.max(due, now) + math.max(more, 0) * one.a - now) + 2 * KEPT)
  return more <= 0
end

if operation == 'reserve' then
  local longest, denier = -1, nil
  for index = 1, #KEYS do
    local one = limit(index)
    local wait = wait_of(one)
    if wait == -2 then return { 2, index, shown(now) } end
    if wait ~= 0 then
      redis.call('HSET', one.key, 'denied', '1')
      if one.kind == 'c' then redis.call('EXPIRE', one.key, 600) end
      if math.max(wait, 0) > longest then longest, denier = math.max(wait, 0), index end
    end
  end
  if denier then return { 0, denier, shown(longest) } end
  for index = 1, #KEYS do take(limit(index)) end
  return { 1, 0, shown(now) }
end

if operation == 'settle' or operation == 'release' then
  for index = 1, #KEYS do
    local one = limit(index)
    local held, used = string.match(one.units, '^(.*)/(.*)$')
    held, used = tonumber(held), tonumber(used)
    if one.kind == 'c' then
      let_go(one)
      tell(one)
    elseif one.kind == 'd' then
      let_go(one)
      if operation == 'settle' then spend(one, used) end
      tell(one)
    elseif one.kind == 't' then
      if correct(one, held, used) then tell(one) end
    elseif operation == 'release' then
      -- What has refilled since may have been there anyway, had nothing been taken.
      local due, back = number(redis.call('HGET', one.key, 'due')), one.a - (now - at)
      if due > now and back > 0 then redis.call('HSET', one.key, 'due', shown(math.max(now, due - back))) end
      tell(one)
    end
  end
  return { 1, 0, shown(now) }
end

if operation == 'late' then
  return { 1, 0, shown(number(redis.call('HGET', KEYS[1], 'l:' .. node))) }
end

if operation == 'begin' then
  -- at: when the node's ledger was asked; units: what it knows; a: `late` before that; b: when the period ends; c: 1 if it was begun before, as this
  -- process knows. After that: how many processes there are, then id and units of each that this one has under way.
  -- Gives 1 once the sum may be used, and its name.
  local one = limit(1)
  local there = redis.call('HMGET', one.key, 'ends', 'name')
  -- One without a name is of a version that did not put it together: all that is in it is in the ledgers.
  local first = number(there[1]) <= now or not there[2]
  if first then begin(one) end
  if redis.call('HSETNX', one.key, 'n:' .. node, ARGV[5]) == 1 then
    local late = number(redis.call('HGET', one.key, 'l:' .. node)) - one.a
    redis.call('HINCRBYFLOAT', one.key, 'spent', shown(tonumber(one.units) + math.max(late, 0)))
    redis.call('HDEL', one.key, 'l:' .. node)
  end
  if one.c == 1 then redis.call('HSET', one.key, 'lost', '1') end
  if redis.call('HSETNX', one.key, 's:' .. process, '1') == 1 then
    for index = 15, #ARGV, 2 do
      if redis.call('HSETNX', one.key, 'h:' .. ARGV[index], ARGV[index + 1]) == 1 then
        redis.call('HINCRBYFLOAT', one.key, 'h', ARGV[index + 1])
        redis.call('ZADD', one.key .. ':held', shown(now + lease), ARGV[index])
        redis.call('EXPIRE', one.key .. ':held', math.ceil(lease) * 4)
      end
    end
    if first or one.c == 1 then
      local about = redis.call('HMGET', one.key, 'name', 'born')
      local kind = one.c == 1 and 'lost' or 'begun'
      redis.call('PUBLISH', channel .. ':sums', table.concat({ kind, about[1], about[2], one.key }, ' '))
    end
  end
  redis.call('EXPIRE', one.key, math.max(math.ceil(one.b - now), 0) + 86400)
  local kept = redis.call('HMGET', one.key, 'born', 'lost', 'name')
  local complete = not kept[2] or now - number(kept[1]) >= GRACE or spoken(one) >= tonumber(ARGV[14])
  if complete then redis.call('HSET', one.key, 'p:' .. process, '1') end
  return { complete and 1 or 0, 0, kept[3] }
end

if operation == 'owe' then
  -- Spent while this server was away. a: when the last of it was. What the ledger was asked for since is in the sum already.
  for index = 1, #KEYS do
    local one = limit(index)
    if one.a >= number(redis.call('HGET', one.key, 'n:' .. node)) then spend(one, tonumber(one.units)) end
  end
  return { 1, 0, shown(now) }
end

if operation == 'renew' then
  for index = 1, #KEYS do
    redis.call('ZADD', KEYS[index] .. ':held', 'XX', shown(now + lease), id)
    redis.call('EXPIRE', KEYS[index] .. ':held', math.ceil(lease) * 4)
  end
  return { 1, 0, shown(now) }
end

if operation == 'tighten' then
  -- units: left; a: for how many seconds.
  local one = limit(1)
  local kept = redis.call('HMGET', one.key, 'left', 'until')
  local left, over = tonumber(one.units), now + one.a
  local old, last = number(kept[1]), number(kept[2])
  if now < last then
    if left >= old and (old < 1 or over <= last + 1) then return { 1, 0, shown(now) } end
    over = math.max(over, last)
  end
  redis.call('HSET', one.key, 'left', shown(left), 'until', shown(over))
  redis.call('EXPIRE', one.key, math.ceil(over - now) + 2 * KEPT)
  return { 1, 0, shown(now) }
end

return redis.error_reply('no such operation')
