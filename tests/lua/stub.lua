-- What slurmctld offers a job_submit script, as far as the filter uses it, and a test harness of a few lines.

local stub = { messages = {} }

NO_VAL, NO_VAL16, NO_VAL64 = 4294967294, 65534, 18446744073709551614.0

slurm = {
    SUCCESS = 0, ERROR = -1, NO_VAL = NO_VAL, NO_VAL16 = NO_VAL16, NO_VAL64 = NO_VAL64,
    ESLURM_ACCESS_DENIED = 2002, ESLURM_INVALID_NODE_COUNT = 2006, ESLURM_ACCOUNTING_POLICY = 2050,
    log_user = function(...) stub.messages[#stub.messages + 1] = string.format(...) end,
    log_error = function(...) stub.messages[#stub.messages + 1] = "log: " .. string.format(...) end,
}

local FIELDS = {
    spank_job_env = true, num_tasks = true, cpus_per_task = true, min_cpus = true, min_nodes = true, max_nodes = true, ntasks_per_node = true,
    min_mem_per_cpu = true, min_mem_per_node = true, mem_per_tres = true, het_job_offset = true, account = true, qos = true,
    default_account = true, default_qos = true, partition = true, user_name = true, shared = true, admin_comment = true, licenses = true,
    tres_per_node = true, tres_per_job = true, tres_per_task = true, tres_per_socket = true,
}

-- Returns a job_desc as slurmctld makes it: numbers that are not set are NO_VAL, and an unknown field is a mistake.
function stub.job(given)
    local values = {
        num_tasks = NO_VAL, cpus_per_task = NO_VAL16, min_nodes = NO_VAL, max_nodes = NO_VAL, ntasks_per_node = NO_VAL16,
        het_job_offset = NO_VAL, user_name = "alice",
    }
    local written = {}
    for key, value in pairs(given) do values[key] = value end
    return setmetatable({}, {
        __index = function(_, key) assert(FIELDS[key], key); return values[key] end,
        __newindex = function(_, key, value)
            assert(FIELDS[key] and key ~= "spank_job_env", key)
            assert(key == "admin_comment" or key == "licenses" or value == math.floor(value) and value >= 0 and value < 4294967294, key)
            values[key], written[key] = value, value
        end,
    }), written
end

local passed, failed = 0, 0

-- Runs one test; `body` raises when it fails.
function stub.test(name, body)
    stub.messages = {}
    local ok, problem = pcall(body)
    if ok then passed = passed + 1 else failed = failed + 1; print("FAILED " .. name .. ": " .. tostring(problem)) end
end

function stub.equal(found, wanted)
    if found ~= wanted then error(string.format("found %s, wanted %s", tostring(found), tostring(wanted)), 2) end
end

-- Requires the only message to the user to contain this text.
function stub.said(text)
    local all = table.concat(stub.messages, "\n")
    if #stub.messages ~= 1 or not string.find(all, text, 1, true) then error("said: " .. all, 2) end
    assert(not string.find(all, "\n"), "more than one line")
end

function stub.finish()
    print(string.format("%d passed, %d failed, %s", passed, failed, _VERSION))
    os.exit(failed == 0 and passed > 0 and 0 or 1)
end

return stub
