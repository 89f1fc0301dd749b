-- Times the filter: for each group of inputs the one that takes longest, its median of a few rounds in ms. See filter.py.

local here, tests, policy_file = arg[1], arg[2], arg[3]
package.path = here .. "/?.lua;" .. tests .. "/?.lua;" .. package.path
local stub, inputs = require("stub"), require("inputs")
local pcocc = require("pcocc")
pcocc.policy_file = policy_file
pcocc.init()

local ROUNDS, REPEATS = 9, 5

-- Returns the median time of one call, in ms of CPU.
local function measure(given)
    local times = {}
    for round = 1, ROUNDS do
        local begin = os.clock()
        for _ = 1, REPEATS do
            pcocc.job_submit(stub.job(given), { vm = { flag_default = 1 } }, 1000)
        end
        times[round] = (os.clock() - begin) / REPEATS * 1000
        stub.messages = {}
    end
    table.sort(times)
    return times[math.ceil(ROUNDS / 2)]
end

local function longest(group, every)
    local most, name = 0, ""
    for _, one in ipairs(every) do
        collectgarbage()
        local taken = measure(one[2])
        if taken > most then most, name = taken, one[1] end
    end
    print(string.format("%s\t%.3f\t%s", group, most, (string.gsub(name, "%c", "?"))))
end

longest("none of ours", { { "", { spank_job_env = { [0] = "_SLURM_SPANK_OPTION_x_y=1" } } } })
longest("mebibyte", inputs.mebibytes())
longest("largest", inputs.largest())
