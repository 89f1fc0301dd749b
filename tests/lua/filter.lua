-- Tests of job_submit/pcocc.lua. Arguments: the directory of the module, and a policy file that `pcocc config policy` wrote.

local here, policy_file = arg[1], arg[2]
package.path = here .. "/?.lua;" .. string.match(arg[0], "^(.*)/") .. "/?.lua;" .. package.path
local stub = require("stub")
local test, equal, said = stub.test, stub.equal, stub.said

local function fresh(path)
    package.loaded.pcocc = nil
    local pcocc = require("pcocc")
    pcocc.policy_file = path or "/nonexistent/policy.lua"
    return pcocc
end

local OPTION = "_SLURM_SPANK_OPTION_pcocc_pcocc-template="

-- Submits a job with a template text; returns the code and what the filter wrote.
local function submit(template, given, size, path, partitions)
    given = given or {}
    given.spank_job_env = { [0] = "_SLURM_SPANK_OPTION_other_x=1", [1] = OPTION .. template, [2] = size and "PCOCC_SIZE=" .. size }
    local job, written = stub.job(given)
    return fresh(path).job_submit(job, partitions or { vm = { flag_default = 1 }, ib = { flag_default = 0 } }, 1000), written
end

local function refused(text, ...)
    local code = submit(...)
    assert(code ~= 0, "accepted")
    said("pcocc: error: " .. text)
    return code
end

test("a job without our options passes untouched", function()
    local pcocc = fresh("/etc/passwd")
    pcocc.load_policy = function() error("read a file") end
    for _, env in ipairs({ {}, { [0] = "_SLURM_SPANK_OPTION_x_y=1", [1] = "FOO=PCOCC_TEMPLATE=x" }, false }) do
        local job, written = stub.job({ spank_job_env = env or nil })
        equal(pcocc.job_submit(job, {}, 1000), 0)
        equal(next(written), nil)
    end
    equal(#stub.messages, 0)
end)

test("the number of VMs is the number of tasks", function()
    local code, written = submit("tiny:2,big", {}, "vms=3;cpus=4;memory=2048")
    equal(code, 0)
    equal(written.num_tasks, 3)
    equal(written.cpus_per_task, 4)
    equal(written.min_cpus, 12)
    equal(written.min_mem_per_cpu, 512)
    equal(written.ntasks_per_node, nil)
    equal(#stub.messages, 0)
end)

test("the option may come by the environment only", function()
    local job, written = stub.job({ spank_job_env = { [0] = "PCOCC_TEMPLATE=tiny:5" } })
    equal(fresh().job_submit(job, nil, 1000), 0)
    equal(written.num_tasks, 5)
    equal(written.min_mem_per_cpu, nil)
end)

test("what keeps a job's cluster is named in its comment", function()
    local name = string.rep("0123456789abcdef", 2)
    for given, wanted in pairs({ [name] = "pcocc-cluster=" .. name, [""] = "", [name .. "0"] = "", [string.rep("g", 32)] = "", ["%s"] = "" }) do
        for _, former in ipairs({ "", "the site's own" }) do
            local env = { [0] = "PCOCC_KEPT=" .. given, [1] = "PCOCC_TEMPLATE=tiny:5" }
            local job, written = stub.job({ spank_job_env = env, admin_comment = former ~= "" and former or nil })
            equal(fresh().job_submit(job, nil, 1000), 0)
            local found = (written.admin_comment or "")
            equal(found, wanted == "" and former or former == "" and wanted or former .. " " .. wanted)
        end
    end
end)

test("nothing is kept of a job without a cluster, or of one that is refused", function()
    for _, template in ipairs({ "", "PCOCC_TEMPLATE=tiny:x" }) do
        local job, written = stub.job({ spank_job_env = { [0] = "PCOCC_KEPT=" .. string.rep("0", 32), [1] = template } })
        fresh().job_submit(job, nil, 1000)
        equal(written.admin_comment, nil)
    end
end)

test("what the user gave stays", function()
    local _, written = submit("tiny:2", { cpus_per_task = 3, min_mem_per_node = 900, num_tasks = 2 }, "cpus=4;memory=2048")
    equal(written.cpus_per_task, nil)
    equal(written.min_mem_per_cpu, nil)
    _, written = submit("tiny:2", { cpus_per_task = 3 }, "cpus=4;memory=100")
    equal(written.min_mem_per_cpu, 34)
    _, written = submit("tiny:2", { min_mem_per_cpu = 100 }, "cpus=4;memory=2048")
    equal(written.min_mem_per_cpu, nil)
end)

test("one CPU is Slurm's own default", function()
    local _, written = submit("tiny:2", {}, "cpus=1;memory=0")
    equal(written.cpus_per_task, nil)
    equal(written.min_mem_per_cpu, nil)
end)

test("VMs spread evenly over the nodes asked for", function()
    for _, case in ipairs({ { 8, 2, 4 }, { 5, 2, 3 }, { 4, 4, 1 }, { 3, 1, nil } }) do
        local _, written = submit("tiny:" .. case[1], { min_nodes = case[2] })
        equal(written.ntasks_per_node, case[3])
    end
    local _, written = submit("tiny:8", { min_nodes = 2, ntasks_per_node = 6 })
    equal(written.ntasks_per_node, nil)
end)

test("a VM that wants whole nodes gets them", function()
    local code, written = submit("tiny:3", {}, "cpus=2;memory=512;exclusive=1")
    equal(code, 0)
    for key, value in pairs({ shared = 0, ntasks_per_node = 1, min_nodes = 3, num_tasks = 3, cpus_per_task = 2, min_mem_per_node = 0 }) do
        equal(written[key], value)
    end
    equal(written.min_mem_per_cpu, nil)
    _, written = submit("tiny:3", { min_mem_per_node = 900 }, "exclusive=1")
    equal(written.min_mem_per_node, nil)
    _, written = submit("whole", {}, nil, policy_file)
    equal(written.shared, 0)
    _, written = submit("tiny", {}, "exclusive=0", policy_file)
    equal(written.shared, nil)
end)

test("nodes that are fewer than VMs that take whole ones are refused", function()
    refused("-N says 2, but each of 3 VMs takes a whole node", "tiny:3", { max_nodes = 2 }, "exclusive=1")
end)

test("tasks that share a node are refused where VMs take whole ones", function()
    refused("--ntasks-per-node says 3, but each of these VMs", "tiny:3", { ntasks_per_node = 3 }, "exclusive=1")
end)

test("a conflict is refused with both numbers", function()
    refused("-n says 2, but --pcocc-template says 3 VMs", "tiny:3", { num_tasks = 2 })
end)

test("tasks that sbatch derived from --ntasks-per-node are no conflict", function()
    local code, written = submit("tiny:3", { num_tasks = 1, ntasks_per_node = 1 })
    equal(code, 0)
    equal(written.num_tasks, 3)
    equal(written.min_nodes, 3)
    code, written = submit("tiny:3", { num_tasks = 4, ntasks_per_node = 2, min_nodes = 2, max_nodes = 2 })
    equal(code, 0)
    equal(written.min_nodes, 2)
    refused("-n says 5", "tiny:3", { num_tasks = 5, ntasks_per_node = 2, min_nodes = 2 })
end)

test("a template may have slashes in its name, after the first letter", function()
    local _, written = submit("site/big:2,tiny")
    equal(written.num_tasks, 3)
    refused("'/tiny' is not the name", "/tiny", {})
end)

test("an equal -n is none", function()
    equal(submit("tiny:3", { num_tasks = 3 }), 0)
end)

test("more nodes than VMs are refused", function()
    equal(refused("-N says 4, but --pcocc-template says 3 VMs", "tiny:3", { min_nodes = 4 }), 2006)
end)

test("VMs that fit on no allowed nodes are refused", function()
    refused("8 VMs do not fit on 2 nodes with --ntasks-per-node=3", "tiny:8", { min_nodes = 2, max_nodes = 2, ntasks_per_node = 3 })
end)

test("a heterogeneous job is refused", function()
    refused("a heterogeneous job", "tiny:3", { het_job_offset = 0 })
end)

for _, case in ipairs({
    { "tiny:0", "'0' is not a number of VMs of template 'tiny'" }, { "tiny:-1", "'-1' is not a number" },
    { "tiny:x", "'x' is not a number" }, { "tiny:1e3", "'1e3' is not a number" }, { "tiny:0x10", "'0x10' is not a number" },
    { "tiny:", "'' is not a number" }, { "", "'' is not the name of a template" }, { "a,,b", "'' is not the name" },
    { "a b", "'a b' is not the name" }, { "tiny:inf", "'inf' is not a number" }, { "tiny:nan", "'nan' is not a number" },
    { "tiny:" .. string.rep("9", 400), "'" .. string.rep("9", 200) .. "' is not a number of VMs" }, { "tiny:1000000000", "1000000000 VMs are asked for" },
    { "%s%d:x%s", "'%s%d:x%s' is not the name" }, { "tiny:x\n\27[31m", "'x??[31m' is not a number" },
}) do
    test("template text " .. case[1], function() refused(case[2], case[1]) end)
end

test("many parts cannot overflow Slurm's fields", function()
    refused("499999999999501 VMs are asked for, but this job can have 65536 at most", string.rep("a:999999999999,", 500) .. "a")
end)

test("a forged size reaches no C integer unchecked", function()
    for _, value in ipairs({ "inf", "nan", "-5", "1e300", "0x7fffffff", "99999999999999999999", "" }) do
        local code, written = submit("tiny:2", {}, "vms=9;cpus=" .. value .. ";memory=" .. value)
        equal(code, 0)
        equal(written.cpus_per_task, nil)
        equal(written.min_mem_per_cpu, nil)
        equal(written.num_tasks, 2)
    end
    local _, written = submit("tiny:2", {}, "cpus=999999999;memory=999999999999999")
    equal(written.cpus_per_task, 4096)
end)

-- The policy file has: max_vms 16; students 4; tiny 256 MiB; big 4 CPUs, 2 GiB, for account physics, set ib, which is for
-- partition ib.

test("the site's templates size a job that says nothing", function()
    local code, written = submit("big:2", { account = "physics", partition = "ib" }, nil, policy_file)
    equal(code, 0)
    equal(written.cpus_per_task, 4)
    equal(written.min_mem_per_cpu, 512)
end)

test("more VMs than the site or a rule allows are refused", function()
    equal(refused("17 VMs are asked for, but this job can have 16 at most", "tiny:17", {}, nil, policy_file), 2050)
    equal(submit("tiny:16", {}, nil, policy_file), 0)
end)

test("the smallest rule counts", function()
    refused("5 VMs are asked for, but this job can have 4 at most", "tiny:4,tiny", { account = "students" }, nil, policy_file)
    equal(submit("tiny:4", { account = "students" }, nil, policy_file), 0)
end)

test("a rule for one of several partitions counts", function()
    refused("3 VMs are asked for, but this job can have 2 at most", "tiny:3", { partition = "other,debug" }, nil, policy_file)
    equal(submit("tiny:3", { partition = "other" }, nil, policy_file), 0)
end)

test("the default account counts when none is given", function()
    refused("5 VMs are asked for, but this job can have 4 at most", "tiny:5", { default_account = "students" }, nil, policy_file)
end)

test("a template for others is refused", function()
    local text = "template 'big' is not for account 'chemistry'; it is for: physics"
    equal(refused(text, "tiny,big", { account = "chemistry", partition = "ib" }, nil, policy_file), 2002)
end)

test("a job without an account is nobody's", function()
    refused("template 'big' is not for account ''", "big", { partition = "ib" }, nil, policy_file)
end)

test("a resource set for another partition is refused", function()
    refused("resource set 'ib' is not for partition 'vm'; it is for: ib", "big", { account = "physics" }, nil, policy_file)
end)

test("every partition of a list must be allowed", function()
    refused("resource set 'ib' is not for partition 'ib,vm'", "big", { account = "physics", partition = "ib,vm" }, nil, policy_file)
end)

test("a user's own template is judged by its resource set", function()
    equal(submit("mine", {}, "vms=1;cpus=1;memory=0;sets=default:1", policy_file), 0)
end)

test("a user's own template cannot reach a restricted set", function()
    refused("resource set 'ib' is not for partition 'vm'", "mine", {}, "sets=default:1,ib:1", policy_file)
end)

test("a resource set for other users is refused", function()
    refused("resource set 'own' is not for user 'bob'; it is for: alice, carol", "mine", { user_name = "bob" }, "sets=own:1", policy_file)
end)

test("a resource set for another QOS is refused", function()
    refused("resource set 'own' is not for QOS 'high'; it is for: normal", "mine", { qos = "high" }, "sets=own:1", policy_file)
    equal(submit("mine", { qos = "normal" }, "sets=own:1", policy_file), 0)
end)

test("groups are left to the nodes", function()
    equal(submit("mine", {}, "sets=lab:1", policy_file), 0)
end)

test("a template nobody knows is refused where sets are restricted", function()
    refused("the site's policy file does not know the resource sets of these templates", "mine", {}, "vms=1;cpus=1;memory=0", policy_file)
end)

test("a damaged policy refuses, a missing one does not", function()
    local path = os.tmpname()
    for _, text in ipairs({ "return {", "error('x')", "return 5" }) do
        local file = io.open(path, "w")
        file:write(text)
        file:close()
        stub.messages = {}
        assert(submit("tiny", {}, nil, path) ~= 0)
        assert(string.find(stub.messages[1], "log: pcocc: ", 1, true), stub.messages[1])
        assert(string.find(stub.messages[2], "the site's policy file is damaged", 1, true))
    end
    os.remove(path)
    equal(submit("tiny", {}, nil, path), 0)
end)

test("the policy is read once", function()
    local pcocc, reads = fresh(), 0
    local load = pcocc.load_policy
    pcocc.load_policy = function(path) reads = reads + 1; return load(path) end
    for _ = 1, 3 do
        equal(pcocc.job_submit(stub.job({ spank_job_env = { [0] = OPTION .. "tiny" } }), {}, 1), 0)
    end
    equal(reads, 1)
end)

stub.finish()
