-- Tests of job_submit/pcocc_devices.lua through the filter. Arguments: the directory of the module, and a policy file with the set ai,
-- whose VMs have two devices of GRES gpu:a100 and one of nvme, and the set hpc, whose VMs have one of nic.

local here, policy_file = arg[1], arg[2]
package.path = here .. "/?.lua;" .. string.match(arg[0], "^(.*)/") .. "/?.lua;" .. package.path
local stub = require("stub")
local test, equal, said = stub.test, stub.equal, stub.said

local function submit(sets, vms, given)
    package.loaded.pcocc = nil
    local pcocc = require("pcocc")
    pcocc.policy_file, slurm.jobs, stub.messages = policy_file, nil, {}
    given.spank_job_env = { [0] = "PCOCC_TEMPLATE=tiny:" .. vms, [1] = "PCOCC_SIZE=vms=" .. vms .. ";sets=" .. sets }
    return pcocc.job_submit(stub.job(given), { vm = { flag_default = 1 } }, 1000)
end

local function passes(...)
    local code = submit(...)
    equal(code, 0)
    equal(#stub.messages, 0)
end

local function refused(text, ...)
    equal(submit(...), slurm.ERROR)
    said("pcocc: error: the VMs need " .. text)
end

test("who asks for enough passes, however it is written", function()
    passes("default:3", 3, {})
    for _, line in ipairs({ "gres:gpu:a100:2,gres:nvme:1", "gres/gpu:a100=2,gres/nvme=1", "gpu:2,nvme", "gres:gpu:4K,gres:nvme:x:1" }) do
        passes("ai:1", 1, { tres_per_node = line })
        passes("ai:4", 4, { tres_per_node = line }) -- on four nodes perhaps
        passes("ai:2", 2, { tres_per_task = line })
    end
    passes("ai:2", 2, { tres_per_job = "gres:gpu:a100:4", tres_per_node = "gres:nvme:1" })
    passes("ai:9", 9, { tres_per_socket = "gres:gpu:a100:1,gres:nvme:1" })
    passes("hpc:2", 2, { tres_per_node = "gres:nic:mlx5:2", max_nodes = 1 })
end)

test("who asks for too few reads both numbers", function()
    refused("2 devices of GRES gpu:a100, but the job asks for 0: write --gres=gpu:a100:N for N on each node", "ai:1", 1, {})
    refused("8 devices of GRES gpu:a100, but the job asks for 4", "ai:4", 4, { tres_per_node = "gres:gpu:a100:2,gres:nvme:4", max_nodes = 2 })
    refused("4 devices of GRES nvme, but the job asks for 2", "ai:4", 4, { tres_per_node = "gres:gpu:a100:4,gres:nvme:1", max_nodes = 2 })
    refused("2 devices of GRES gpu:a100, but the job asks for 0", "ai:1", 1, { tres_per_node = "gres:gpu:h100:2,gres:gpux:2,gres:nvme:1" })
    refused("3 devices of GRES nic, but the job asks for 2", "hpc:3", 3, { tres_per_job = "gres:nic:2" })
    refused("2 devices of GRES gpu:a100, but the job asks for 1", "ai:1", 1, { tres_per_node = "gres:gpu,gres:nvme" })
end)

test("what templates add counts, too", function()
    refused("2 devices of GRES nvme, but the job asks for 1", "default:2:nvme::1", 2, { tres_per_job = "gres:nvme:1" })
    refused("6 devices of GRES gpu:a100, but the job asks for 4", "ai:2:gpu:a100:1:x::1,ai:0,default:1", 3, {
        tres_per_job = "gres:gpu:a100:4,gres:nvme:9,gres:x:9" })
end)

test("the sum of what VMs need never wraps", function()
    for _, times in ipairs({ 10, 13, 20, 200 }) do
        refused("1000000000 devices of GRES gpu:a100, but the job asks for 1", "ai:999999999" .. string.rep(":gpu:a100:999999999", times), 1, {
            tres_per_node = "gres:gpu:a100:1,gres:nvme:4K" })
    end
end)

test("none on each socket are none", function()
    refused("2 devices of GRES gpu:a100, but the job asks for 0", "ai:1", 1, { tres_per_socket = "gres:gpu:a100:0,gres:nvme:0" })
end)

test("a text that is none of ours makes no trouble", function()
    for _, sets in ipairs({ "", ":", "ai", "ai:", "ai:x", "ai:1:gpu", string.rep("ai:1,", 600), "ai:" .. string.rep("9", 40), "nosuch:2" }) do
        submit(sets, 1, { tres_per_node = string.rep("gres:gpu:a100:9,", 2000) })
    end
    passes("nosuch:2", 2, {})
end)

stub.finish()
