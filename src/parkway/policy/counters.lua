-- The counters in Redis: any number of operations, each whole or not at all, by Redis's own clock.
--
-- KEYS[1] is what all keys begin with, in braces, so that a cluster keeps them in one place.
-- ARGV[1] is a list in MessagePack. An operation is
--   {"take", lease, lease_us, {{state, form, amount, limit, full, per_us, period, flags, seed_start, seed_spent}, ...}}
--   {"settle", lease, {{state, form, amount, used, per_us, start_ms, flags}, ...}}
-- and answers, in the same order, with
--   {0, 0, {{used, spent, start_ms}, ...}}            taken
--   {i, wait_us, {{spent, reserved, start_ms}}}       refused by charge i, wait_us < 0: never
--   {}                                                settled
-- Forms are those of policy/rule.py: 0 rate, 1 window, 2 slots. Flags: 1 hard, 2 counted for good when taken.

local prefix = KEYS[1] .. ':'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local DAY = 86400000
local RESERVED_WAIT = 1000000 -- as in policy/counters.py

-- Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
local function month_start(ms)
    local days = math.floor(ms / DAY)
    local shifted = days + 719468
    local of_era = shifted % 146097
    local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
        - math.floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * of_year + 2) / 153)
    local of_month = of_year - math.floor((153 * month + 2) / 5)
    return (days - of_month) * DAY
end

local function start_of(period)
    local ms = math.floor(now / 1000)
    if period == 'day' then return ms - ms % DAY end
    if period == 'month' then return month_start(ms) end
    return 0
end

local function end_of(period, start)
    if period == 'day' then return start + DAY end
    if period == 'month' then return month_start(start + 32 * DAY) end
    return nil
end

local function read_rate(key, per_us)
    local text = redis.call('GET', key)
    if not text then return 0 end
    local used, at = string.match(text, '^(%S+) (%S+)$')
    return math.max(0, tonumber(used) - (now - tonumber(at)) * per_us)
end

local function write_rate(key, used, per_us)
    if used <= 0 then
        redis.call('DEL', key)
    else
        local text = string.format('%.17g %.0f', used, now)
        redis.call('SET', key, text, 'PX', string.format('%.0f', math.ceil(used / per_us / 1000) + 1000))
    end
end

-- Spent, reserved and start of a window; one that is over begins anew, and what nobody will settle is let go.
local function read_window(key, period, seed_start, seed_spent)
    local start = start_of(period)
    local fields = redis.call('HMGET', key, 'start', 'spent', 'reserved')
    local spent, reserved = 0, 0
    if fields[1] and tonumber(fields[1]) == start then
        spent, reserved = tonumber(fields[2]), tonumber(fields[3])
        local leases = key .. ':leases'
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do
            redis.call('ZREM', leases, member)
            reserved = math.max(0, reserved - tonumber(string.match(member, '|(.+)$')))
            redis.call('HSET', key, 'reserved', string.format('%.0f', reserved))
        end
    elseif fields[1] then
        redis.call('DEL', key, key .. ':leases')
    end
    if seed_start == start and seed_spent > spent then spent = seed_spent end
    return spent, reserved, start
end

local function write_window(key, period, spent, reserved, start)
    redis.call('HSET', key, 'start', string.format('%.0f', start), 'spent', string.format('%.0f', spent),
        'reserved', string.format('%.0f', reserved))
    local last = end_of(period, start)
    -- What has no end is kept for a year after its last use; the store has it for longer.
    redis.call('PEXPIREAT', key, string.format('%.0f', last and last + DAY or now / 1000 + 400 * DAY))
end

local function ask(charge, lease)
    local key, form, amount, limit = prefix .. charge[1], charge[2], charge[3], charge[4]
    if form == 0 then
        local used = read_rate(key, charge[6]) + amount
        if used <= charge[5] or amount <= 0 then return {used, 0, 0} end
        if amount > charge[5] then return nil, -1, {0, 0, 0} end
        return nil, (used - limit) / charge[6], {0, 0, 0}
    elseif form == 1 then
        local spent, reserved, start = read_window(key, charge[7], charge[9], charge[10])
        local hard = charge[8] % 2 == 1
        if spent + reserved + amount <= limit or amount <= 0 or not hard then
            return {spent + reserved + amount, spent, start}
        end
        if spent + amount <= limit then return nil, RESERVED_WAIT, {spent, reserved, start} end
        local last = end_of(charge[7], start)
        if not last or amount > limit then return nil, -1, {spent, reserved, start} end
        return nil, last * 1000 - now, {spent, reserved, start}
    end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local used = redis.call('ZCARD', key) + 1
    if used <= limit then return {used, 0, 0} end
    return nil, RESERVED_WAIT, {0, used - 1, 0}
end

local function take(lease, lease_us, charges)
    local standings, refused, longest, known = {}, 0, 0, nil
    for i, charge in ipairs(charges) do
        local standing, wait, state = ask(charge, lease)
        standings[i] = standing or {0, 0, 0}
        if not standing and (refused == 0 or (longest >= 0 and (wait < 0 or wait > longest))) then
            refused, longest, known = i, wait, state
        end
    end
    if refused > 0 then return {refused, longest, {known}} end
    for i, charge in ipairs(charges) do
        local key, form, amount, standing = prefix .. charge[1], charge[2], charge[3], standings[i]
        if form == 0 then
            write_rate(key, standing[1], charge[6])
        elseif form == 1 then
            local used, spent, start = standing[1], standing[2], standing[3]
            if charge[8] >= 2 then
                write_window(key, charge[7], spent + amount, used - spent - amount, start)
            else
                write_window(key, charge[7], spent, used - spent, start)
                redis.call('ZADD', key .. ':leases', now + lease_us, lease .. '|' .. string.format('%.0f', amount))
                redis.call('PEXPIRE', key .. ':leases', string.format('%.0f', lease_us / 1000 + DAY))
            end
        else
            redis.call('ZADD', key, now + lease_us, lease)
            redis.call('PEXPIRE', key, string.format('%.0f', lease_us / 1000 + 1000))
        end
    end
    return {0, 0, standings}
end

local function settle(lease, charges)
    for _, charge in ipairs(charges) do
        local key, form, amount, used = prefix .. charge[1], charge[2], charge[3], charge[4]
        if form == 0 then
            if used ~= amount then
                write_rate(key, math.max(0, read_rate(key, charge[5]) + used - amount), charge[5])
            end
        elseif form == 1 then
            -- A lease that is gone was settled before, or Redis has forgotten it all.
            local gone = redis.call('ZREM', key .. ':leases', lease .. '|' .. string.format('%.0f', amount)) == 0
            if not gone and tonumber(redis.call('HGET', key, 'start') or -1) == charge[6] then
                redis.call('HINCRBY', key, 'spent', string.format('%.0f', used))
                redis.call('HINCRBY', key, 'reserved', string.format('%.0f', 0 - amount))
            end
        else
            redis.call('ZREM', key, lease)
        end
    end
    return {}
end

local answers = {}
for i, operation in ipairs(cmsgpack.unpack(ARGV[1])) do
    if operation[1] == 'take' then
        answers[i] = take(operation[2], operation[3], operation[4])
    else
        answers[i] = settle(operation[2], operation[3])
    end
end
return cmsgpack.pack(answers)
