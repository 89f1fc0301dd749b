-- Times the choice of a partition key among ten thousand jobs: each line has milliseconds of CPU for one choice, and what jobs there
-- are. Arguments: the directory of the filter. See fabric.py.

local here = arg[1]
package.path = here .. "/?.lua;" .. package.path
local keys = require("pcocc_keys")

local JOBS, ROUNDS, POOL = 10000, 200, 1000
local pools = { ib = { license = "pkey", min_key = 0x2000, max_key = 0x2000 + POOL - 1, max_vms = 256 } }

-- Returns as many jobs, of which each `every`-th has one of `taken` keys; as in slurmctld, each field is asked of a function.
local function make_jobs(every, taken)
    local jobs = {}
    for id = 1, JOBS do
        local line = id % every == 0 and string.format("pkey%04x", 0x2000 + (id / every) % taken) or nil
        local record = { licenses = line, job_state = 1 }
        jobs[tostring(id)] = setmetatable({}, { __index = function(_, field) return record[field] end })
    end
    return jobs
end

local now = 0

-- Prints how long choices take that are so many seconds apart.
local function measure(name, every, taken, seconds)
    local jobs, times = make_jobs(every, taken), {}
    keys.forget()
    keys.clock = function()
        now = now + seconds
        return now
    end
    for round = 1, ROUNDS do
        local begin = os.clock()
        keys.choose(pools, { "ib" }, jobs)
        times[round] = (os.clock() - begin) * 1000
    end
    local sum = 0
    for _, one in ipairs(times) do
        sum = sum + one
    end
    table.sort(times)
    print(string.format("%s\t%.3f\t%.3f\t%.3f", name, sum / ROUNDS, times[ROUNDS / 2], times[ROUNDS]))
end

measure("half of the keys are taken", 20, POOL / 2, 1)
measure("all keys but one are taken", 10, POOL - 1, 1)
measure("all keys but one are taken, many submissions in a second", 10, POOL - 1, 0)
measure("all keys but one are taken, and 9,000 jobs wait for one", 1, POOL - 1, 1)
