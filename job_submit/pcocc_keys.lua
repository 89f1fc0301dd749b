-- Chooses partition keys of InfiniBand for clusters. Each key is a licence of Slurm: slurmctld gives it to one job at
-- a time, and takes it back when the last node is done with that job. So no choice can be wrong: if another job still
-- holds the key, the new job waits. The policy has the pools by the names of their networks: {license = "pkey",
-- min_key = 8192, max_key = 8447, max_vms = 256}. The work is bounded as in pcocc_text.lua. Lua 5.1 to 5.4.

local text = require("pcocc_text")

local keys = {}

local SHOWN = 512 -- characters of a job's licences that are read; the filter's own come first
local MOST_KNOWN = 20000 -- texts whose keys are remembered
local LIVE = 1000 -- the weight of a job that has not ended; one that has ended counts 1
local BASE, COMPLETING, ENDED = 256, 32768, 3 -- of job_state: slurm.h, enum job_states and JOB_COMPLETING

-- Returns the network and the key that a licence such as pkey2001:1 stands for, or nil.
local function find_key(word, pools)
    local name = string.match(word, "^[^:*=@%(]*")
    local digits = string.sub(name, -4)
    local key = string.match(digits, "^[0-9a-f]+$") and #digits == 4 and tonumber(digits, 16)
    for network, pool in pairs(key and pools or {}) do
        local is_named = #name == #pool.license + 4 and string.sub(name, 1, -5) == pool.license
        if is_named and key >= pool.min_key and key <= pool.max_key then
            return network, key
        end
    end
end

-- Returns the first word of a text that is a key of a pool, or nil. --tres-per-task writes it as license/pkey2001:1.
function keys.find_typed(line, pools)
    for word in string.gmatch(string.sub(line, 1, text.MAX_WORDS_TEXT), "[^,;|%s]+") do
        local name = string.lower(string.sub(word, 1, 8)) == "license/" and string.sub(word, 9) or word
        if find_key(name, pools) then
            return name
        end
    end
end

local known, count = {}, 0 -- the keys in licences of jobs: {network = key}, false for none

local function keys_of(line, pools)
    if known[line] ~= nil then
        return known[line]
    end
    local found = {}
    for word in string.gmatch(string.sub(line, 1, SHOWN), "[^,;|%s]+") do
        local network, key = find_key(word, pools)
        if network then
            found[network] = key
        end
    end
    known, count = count < MOST_KNOWN and known or {}, count < MOST_KNOWN and count + 1 or 1
    known[line] = next(found) and found or false
    return known[line]
end

-- Tells whether a job that has ended is still held by its last node.
local function is_completing(state)
    return math.floor(state / COMPLETING) % 2 == 1
end

-- Returns how many jobs have each text of licences; a job that has ended counts little. Nothing else is done for each
-- job.
local function count_jobs(jobs)
    local uses = {}
    for _, job in pairs(jobs) do
        local line = job.licenses
        if line then
            local state = job.job_state
            uses[line] = (uses[line] or 0) + ((state % BASE < ENDED or is_completing(state)) and LIVE or 1)
        end
    end
    return uses
end

-- Returns how many jobs have each key of these networks.
local function count_keys(jobs, pools, networks)
    local uses = {}
    for _, network in ipairs(networks) do
        uses[network] = {}
    end
    for line, weight in pairs(count_jobs(jobs)) do
        for network, key in pairs(keys_of(line, pools) or {}) do
            local of = uses[network]
            if of then
                of[key] = (of[key] or 0) + weight
            end
        end
    end
    return uses
end

-- Returns the key of a network that the newest job has: after slurmctld's start, this is the best guess at the key
-- that was given out last.
local function find_newest(jobs, pools, network)
    local last, newest = -1, nil
    for id, job in pairs(jobs) do
        local found = job.licenses and keys_of(job.licenses, pools)
        local number = tonumber(id) or 0
        if found and found[network] and number > last then
            last, newest = number, found[network]
        end
    end
    return newest
end

-- By network: the keys that no job had when all jobs were last looked at, in the order in which they are given out,
-- and the key given out last. Only the filter gives keys out, so the others stay free, and not every submission must
-- look at all jobs. Where few were free, those that the fewest jobs have follow: jobs are looked at once a second then.
local free, chosen = {}, {}
local FEW = 16
keys.clock = os.time -- in seconds

-- Forgets what was seen of jobs, because a new policy may change its meaning.
function keys.forget()
    known, count, free = {}, 0, {}
end

-- Returns the keys of a pool that no job has, in a ring that begins after `last`, and `free`, their number; where they
-- are few, the others follow, those that the fewest jobs have first.
local function find_free(pool, of, last)
    local size, found, taken, weights = pool.max_key - pool.min_key + 1, {}, {}, {}
    for step = 1, size do
        local key = pool.min_key + (last - pool.min_key + step) % size
        local weight = of[key]
        if not weight then
            found[#found + 1] = key
        else
            if not taken[weight] then
                taken[weight], weights[#weights + 1] = {}, weight
            end
            taken[weight][#taken[weight] + 1] = key
        end
    end
    found.free = #found
    table.sort(weights)
    for _, weight in ipairs(found.free < FEW and weights or {}) do
        for _, key in ipairs(taken[weight]) do
            found[#found + 1] = key
        end
    end
    return found
end

-- Tells whether all jobs must be looked at for the next key of a queue.
local function is_over(queue, now)
    return not queue or queue.at > #queue or queue.at > queue.free and queue.seen ~= now
end

-- Returns a licence for each network: the key that has been free for the longest time.
function keys.choose(pools, networks, jobs)
    jobs = jobs or {}
    local uses, names, now = nil, {}, keys.clock()
    for _, network in ipairs(networks) do
        local queue, pool = free[network], pools[network]
        if is_over(queue, now) then
            uses = uses or count_keys(jobs, pools, networks)
            queue = find_free(pool, uses[network], chosen[network] or find_newest(jobs, pools, network) or pool.max_key)
            queue.at, queue.seen = 1, now
            free[network] = queue
        end
        chosen[network] = queue[queue.at]
        queue.at = queue.at + 1
        names[#names + 1] = string.format("%s%04x", pool.license, chosen[network])
    end
    return names
end

-- Returns the networks with partitions that resource sets have, each once, in a fixed order.
function keys.networks_of(sets, set_partitions)
    local found = {}
    for _, set in ipairs(sets) do
        for _, network in ipairs(set_partitions[set] or {}) do
            text.add(found, network)
        end
    end
    table.sort(found)
    return found
end

return keys
