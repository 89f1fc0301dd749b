-- Tests of job_submit/pcocc_keys.lua through the filter. Arguments: the directory of the module, and a policy file with the
-- networks fabric (0x00fe to 0x0101, licences pkey..., 8 VMs) and second (0x2000 to 0x23e7, licences k..., 256 VMs).

local here, policy_file = arg[1], arg[2]
package.path = here .. "/?.lua;" .. string.match(arg[0], "^(.*)/") .. "/?.lua;" .. package.path
local stub = require("stub")
local test, equal, said = stub.test, stub.equal, stub.said
local RUNNING, PENDING, COMPLETED, COMPLETING = 1, 0, 3, 32768

local function fresh()
    package.loaded.pcocc, package.loaded.pcocc_keys = nil, nil
    local pcocc = require("pcocc")
    pcocc.policy_file = policy_file
    return pcocc
end

-- Submits a job; returns the code and the licences that it has then.
local function submit(pcocc, template, licences, size, gres)
    local env = { [0] = template and "PCOCC_TEMPLATE=" .. template, [1] = size and "PCOCC_SIZE=" .. size }
    local job, written = stub.job({ spank_job_env = env, licenses = licences, tres_per_node = gres })
    return pcocc.job_submit(job, { vm = { flag_default = 1 } }, 1000), written.licenses
end

local function with_jobs(...)
    slurm.jobs = {}
    for place, one in ipairs({ ... }) do
        slurm.jobs[tostring(one[3] or place)] = { licenses = one[1], job_state = one[2] }
    end
end

test("keys are given out in a ring, whatever the jobs", function()
    local pcocc = fresh()
    slurm.jobs = nil
    for _, wanted in ipairs({ "pkey00fe", "pkey00ff", "pkey0100", "pkey0101", "pkey00fe" }) do
        local code, found = submit(pcocc, "mpi:2")
        equal(code, 0)
        equal(found, wanted)
    end
    equal(#stub.messages, 0)
end)

test("a key that a job has is passed over", function()
    local pcocc = fresh()
    with_jobs({ "pkey00fe:1,matlab:2", RUNNING }, { "pkey00ff", PENDING }, { nil, RUNNING }, { "", RUNNING }, { "x", RUNNING })
    pcocc.init()
    equal(select(2, submit(pcocc, "mpi")), "pkey0100")
end)

test("the first after slurmctld's start stands behind the newest job's", function()
    with_jobs({ "pkey0100", COMPLETED, 900 }, { "pkey00fe", COMPLETED, 1000 }, { "pkey0101", COMPLETED, 99 })
    equal(select(2, submit(fresh(), "mpi")), "pkey00ff")
end)

test("of keys that are all taken the first that only an ended job names, else that of the fewest", function()
    with_jobs({ "pkey00fe", RUNNING }, { "pkey00ff", RUNNING }, { "pkey0100", COMPLETED }, { "pkey0101", COMPLETED + COMPLETING })
    equal(select(2, submit(fresh(), "mpi")), "pkey0100")
    with_jobs({ "pkey00fe", RUNNING }, { "pkey00ff", PENDING }, { "pkey0100", PENDING }, { "pkey0101", RUNNING }, { "pkey00fe", PENDING })
    equal(select(2, submit(fresh(), "mpi")), "pkey00ff")
end)

test("each network has its key, and what the user asks for stays behind them", function()
    slurm.jobs = nil
    local code, found = submit(fresh(), "mpi,two", "matlab:2,x@db")
    equal(code, 0)
    equal(found, "pkey00fe,k2000,matlab:2,x@db")
    equal(select(2, submit(fresh(), "tiny", "matlab:2")), nil)
    equal(select(2, submit(fresh(), "own:2", nil, "vms=2;sets=hpc:2", "gres:nic:1")), "pkey00fe")
end)

test("a key is refused to who asks for it, with or without a cluster", function()
    for _, line in ipairs({ "pkey00fe", "a,pkey0101:1", "a|pkey0100", "k23e7*1", "pkey00ff@x", "a;pkey00ff(b", "pkey00ff=1" }) do
        for _, template in ipairs({ false, "mpi", "tiny" }) do
            stub.messages = {}
            local code, found = submit(fresh(), template or nil, line)
            equal(code, slurm.ESLURM_ACCESS_DENIED)
            equal(found, nil)
            said("pcocc: error: the licence '")
            said("is the key of a partition, which pcocc itself gives to a cluster: leave it out")
        end
    end
    stub.messages = {}
    for _, line in ipairs({ "pkey00fd", "pkey0102", "xpkey0100", "pkey00100", "0100", "PKEY0100", "pkey", "k1fff", "pkey010", "pkey 0100" }) do
        equal(submit(fresh(), nil, line), 0)
    end
    equal(#stub.messages, 0)
end)

test("nobody asks for a key by --tres-per-task either", function()
    local function ask(line)
        stub.messages = {}
        return (fresh().job_submit(stub.job({ spank_job_env = {}, tres_per_task = line }), {}, 1000))
    end
    for _, line in ipairs({ "license/pkey00fe:1", "cpu=2,license/pkey0101", "License/pkey0100=1,gres/gpu=1" }) do
        equal(ask(line), slurm.ESLURM_ACCESS_DENIED)
        said("pcocc: error: the licence 'pkey0")
    end
    equal(ask(string.rep("x", 4097)), slurm.ERROR)
    said("pcocc: error: --tres-per-task is longer than 4096 characters; name fewer")
    stub.messages = {}
    for _, line in ipairs({ "license/matlab:2", "license/pkey00fd", "cpu=2,gres/gpu:a100=1", "", "license/" }) do
        equal(ask(line), 0)
    end
    equal(#stub.messages, 0)
end)

test("a choice of licences cannot stand beside a key", function()
    equal(submit(fresh(), "mpi", "a|b"), slurm.ERROR)
    said("this job gets the licence of a partition, so --licenses cannot have '|'")
    equal(submit(fresh(), "tiny", "a|b"), 0)
end)

test("a cluster is no larger than its partition", function()
    equal(submit(fresh(), "mpi:9"), slurm.ERROR)
    said("9 VMs are asked for, but a cluster on network 'fabric' can have 8 at most")
end)

local function modify(has, asked)
    stub.messages = {}
    return fresh().job_modify(stub.job({ licenses = asked }), { licenses = has }, {}, 1000)
end

test("nobody drops, changes or takes a key of a job that is there", function()
    for _, asked in ipairs({ "", "pkey0100", "matlab" }) do
        equal(modify("pkey00fe:1,matlab:1", asked), slurm.ESLURM_ACCESS_DENIED)
        said("the licences of a job with a partition cannot be changed: its VMs use the key")
    end
    for _, has in ipairs({ "", "matlab", false }) do
        equal(modify(has or nil, "pkey0100"), slurm.ESLURM_ACCESS_DENIED)
        said("the licence 'pkey0100' is the key of a partition")
    end
    equal(modify("pkey00fe", nil), 0)
    equal(modify("matlab", ""), 0)
    equal(modify(nil, "matlab:2"), 0)
    equal(#stub.messages, 0)
end)

test("a site without partitions looks at no licence", function()
    local pcocc = fresh()
    pcocc.policy_file = "/nonexistent/policy.lua"
    equal(submit(pcocc, "tiny", "pkey0100"), 0)
    equal(pcocc.job_modify(stub.job({ licenses = "" }), { licenses = "pkey0100" }, {}, 1000), 0)
end)

-- Returns how long a choice takes among ten thousand jobs of which one in `every` has one of `taken` keys, in ms of CPU; so
-- many seconds lie between two.
local function time_of(every, taken, seconds)
    local pcocc, now = fresh(), 0
    require("pcocc_keys").clock = function()
        now = now + seconds
        return now
    end
    slurm.jobs = {}
    for id = 1, 10000 do
        local line = id % every == 0 and string.format("k%04x%s", 0x2000 + id % taken, id % 2 == 0 and ",matlab:1" or "") or nil
        slurm.jobs[tostring(id)] = { licenses = line, job_state = RUNNING }
    end
    submit(pcocc, "many") -- the first looks for the newest, too
    local begin = os.clock()
    for _ = 1, 100 do
        equal((submit(pcocc, "many")), 0)
    end
    return (os.clock() - begin) / 100 * 1000
end

test("of a thousand keys and ten thousand jobs the choice takes little time", function()
    local some, most, burst = time_of(10, 500, 1), time_of(1, 999, 1), time_of(1, 999, 0)
    local form = "%.3f ms with half of the keys taken, %.3f with all but one, %.3f of many in a second, %s"
    print(string.format(form, some, most, burst, _VERSION))
    assert(some * 5 < most and burst * 5 < most, "every choice looks at every job")
end)

test("within a second, keys that jobs have are given out too, those of the fewest first; then jobs are looked at again", function()
    local pcocc, now = fresh(), 7
    require("pcocc_keys").clock = function() return now end
    with_jobs({ "pkey00fe", RUNNING }, { "pkey00ff", RUNNING }, { "pkey00ff", PENDING }, { "pkey0100", RUNNING })
    equal(select(2, submit(pcocc, "mpi")), "pkey0101")
    slurm.jobs = setmetatable({}, { __index = error, __pairs = error })
    equal(select(2, submit(pcocc, "mpi")), "pkey00fe")
    equal(select(2, submit(pcocc, "mpi")), "pkey0100")
    with_jobs({ "pkey00ff", COMPLETED }, { "pkey00fe", RUNNING })
    now = 8
    equal(select(2, submit(pcocc, "mpi")), "pkey0101")
end)

test("a key that was free when all jobs were looked at is given out once until they are looked at again", function()
    local pcocc = fresh()
    with_jobs({ "pkey00ff", RUNNING })
    equal(select(2, submit(pcocc, "mpi")), "pkey0100")
    slurm.jobs = setmetatable({}, { __index = error, __pairs = error })
    equal(select(2, submit(pcocc, "mpi")), "pkey0101")
    equal(select(2, submit(pcocc, "mpi")), "pkey00fe")
    with_jobs({ "pkey00ff", COMPLETED }, { "pkey0100", RUNNING }, { "pkey0101", RUNNING }, { "pkey00fe", PENDING })
    equal(select(2, submit(pcocc, "mpi")), "pkey00ff")
end)

stub.finish()
