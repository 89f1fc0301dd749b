-- What a submitter can send to make the filter work: tests count what it does about each, tests/bench/filter.lua takes the time.

local inputs = {}

local MEBIBYTE = 1048576
local OPTION = "_SLURM_SPANK_OPTION_pcocc_pcocc-template="

local function fill(piece)
    return string.sub(string.rep(piece, math.ceil(MEBIBYTE / #piece)), 1, MEBIBYTE)
end

-- Returns the strings of a job: `count` of another plugin's, each `word`, then those given.
local function entries(count, word, ...)
    local every = {}
    for at = 0, count - 1 do
        every[at] = word
    end
    for at, entry in ipairs({ ... }) do
        every[count + at - 1] = entry
    end
    return every
end

local function several(count, form)
    local words = {}
    for at = 1, count do
        words[at] = string.format(form, at)
    end
    return table.concat(words, ",")
end

-- Returns a mebibyte of many kinds, as {name, fields of the job, code}; `code` false: refused, true: none of ours, which passes.
function inputs.mebibytes()
    local found = {}
    for _, piece in ipairs({ "a", ",", "a,", "tiny:1,", ":", "tiny:", "9", "tiny:9", "=", ";", "sets=", "a=;", "\n", "%", " ", "\\" }) do
        local shown = string.gsub(piece, "%c", "?")
        for _, beginning in ipairs({ OPTION, string.sub(OPTION, 2), "PCOCC_TEMPLATE=", OPTION .. "tiny:", OPTION .. "tiny," }) do
            found[#found + 1] = { beginning .. shown, { spank_job_env = { [0] = beginning .. fill(piece) } }, false }
        end
        for _, beginning in ipairs({ "PCOCC_SIZE=", "PCOCC_SIZE=cpus=", "PCOCC_SIZE=sets=" }) do
            local ours = { [0] = OPTION .. "tiny", [1] = beginning .. fill(piece) }
            found[#found + 1] = { beginning .. shown, { spank_job_env = ours }, false }
            found[#found + 1] = { "no request, " .. beginning .. shown, { spank_job_env = { [0] = ours[1] } }, true }
        end
        for _, field in ipairs({ "account", "partition", "qos", "user_name", "default_account", "default_qos" }) do
            found[#found + 1] = { field .. " " .. shown, { spank_job_env = { [0] = OPTION .. "tiny" }, [field] = fill(piece) }, false }
            found[#found + 1] = { "no request, " .. field .. " " .. shown, { spank_job_env = {}, [field] = fill(piece) }, true }
        end
    end
    for _, piece in ipairs({ "a", ",", ":", "pkey0100,", "0100", "(", " " }) do
        for _, env in ipairs({ {}, { [0] = OPTION .. "mpi" } }) do
            found[#found + 1] = { "licenses " .. piece, { spank_job_env = env, licenses = fill(piece) }, false }
        end
    end
    for _, piece in ipairs({ "a", ",", ":", "gres:gpu:1,", "=", "gpu:", "9" }) do
        for _, field in ipairs({ "tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket" }) do
            local ours = { [0] = OPTION .. "tiny", [1] = "PCOCC_SIZE=vms=1;sets=ai:1" }
            found[#found + 1] = { field .. " " .. piece, { spank_job_env = ours, [field] = fill(piece) }, field ~= "tres_per_task" }
        end
    end
    for _, word in ipairs({ "", "a", "P", "PCOCC_TE", "PCOCC_SIZE", "_SLURM_S", string.sub(OPTION, 1, -2), string.rep("a", 1024), fill("a") }) do
        found[#found + 1] = { "many of " .. string.sub(word, 1, 50), { spank_job_env = entries(math.ceil(MEBIBYTE / (#word + 1)), word) }, true }
    end
    return found
end

-- Returns the most that is accepted, in the same form.
function inputs.largest()
    local partitions = several(128, "partition-of-a-long-name-%04d")
    local names = several(512, "some-template-of-some-site-%03d:99")
    local sets = "vms=1;cpus=1;memory=1;sets=" .. several(512, "some-resource-set-of-some-site-%03d:99")
    local same = string.rep("tiny,", 511) .. "tiny"
    local found = {}
    for _, text in ipairs({ names, same, string.rep("a", 64) .. ":99" }) do
        for _, size in ipairs({ sets, "sets=" .. string.rep(":", 32000), "a=" .. string.rep("=", 32000) }) do
            local env = entries(510, string.sub(OPTION, 1, -2), OPTION .. text, "PCOCC_SIZE=" .. size)
            found[#found + 1] = { string.sub(text, 1, 20) .. " " .. string.sub(size, 1, 20), { spank_job_env = env, partition = partitions, qos = partitions } }
        end
    end
    local wishes = { several(900, "ai:1:gpu%03d:a100:9:nic::1"), "ai:1" .. string.rep(":gpu:a100:1", 2900), "ai:1" .. string.rep(":a", 16000) }
    for _, asked in ipairs({ string.rep("gres:gpu:a100:9,", 31), string.rep("a", 4096), string.rep(":1", 2048), string.rep("=", 4096) }) do
        for place, line in ipairs(wishes) do
            local ours = { [0] = OPTION .. "tiny", [1] = "PCOCC_SIZE=vms=1;sets=" .. line }
            found[#found + 1] = { "devices " .. place .. string.sub(asked, 1, 9), { spank_job_env = ours, tres_per_node = asked, tres_per_job = asked } }
        end
    end
    found[#found + 1] = { "licences", { spank_job_env = { [0] = OPTION .. "two" }, licenses = several(256, "licence%08d") } }
    return found
end

return inputs
