-- How much the filter does about what a submitter sends, counted, not timed. Arguments as of filter.lua.

local here, policy_file = arg[1], arg[2]
package.path = here .. "/?.lua;" .. string.match(arg[0], "^(.*)/") .. "/?.lua;" .. package.path
local stub, inputs = require("stub"), require("inputs")
if jit then jit.off() end -- else its hooks see nothing

local MOST_MEBIBYTE, MOST_LARGEST = 150000, 600000 -- instructions, these counts too, and characters that `string` goes through

-- A pattern is here when somebody has seen that it goes through a text once, whatever the text is.
local PATTERNS = {
    "^%+?%d+$", "^%d+$", "%c", "[^,%s]+", "([%w_./-]*)(:?)([^,]*),", "([^;=]*)=?([^;]*);", "([^,:]*)[^,]*,", "[^,;|%s]+", "^[^:*=@%(]*",
    "^[0-9a-f]+$", "[^,]+", "^([%w_.-]+):(%d+)(.*)$", ":(%a[%w_]*):([%w_.-]*):(%d+)", "^gres[:/]", "^(%a[%w_]*)(.*)$", "[:=](%d+%a?)$",
    "[:=]%d+%a?$", "^:(.+)$", "%a", "^([^:]*):?(.*)$",
}
local LONGEST = 32769 -- characters that may be searched
local SHORT = { [":(%a[%w_]*):([%w_.-]*):(%d+)"] = 4096 } -- of a pattern that looks at each of them several times

local known, work, counting = {}, 0, false
for _, pattern in ipairs(PATTERNS) do known[pattern] = true end

local function count(name, length_of)
    local real = string[name]
    string[name] = function(subject, ...)
        if counting then work = work + length_of(subject, ...) end
        return real(subject, ...)
    end
end

local function search(subject, pattern, _from, plain)
    counting = false
    assert(#subject <= (SHORT[pattern] or LONGEST), "a text of " .. #subject .. " characters is searched for " .. pattern)
    assert(plain == true or known[pattern], "nobody has thought about the pattern " .. pattern)
    counting = true
    return #subject + 1
end

for _, name in ipairs({ "match", "gmatch", "gsub", "find" }) do count(name, search) end
count("sub", function(subject, first, last) return math.max(0, math.min(#subject, last or #subject) - first + 1) end)
count("byte", function() return 1 end)
count("format", function() return 200 end)
local concat = table.concat
table.concat = function(list, ...)
    local made = concat(list, ...)
    work = work + (counting and #made or 0)
    return made
end

local pcocc = require("pcocc")
pcocc.policy_file = policy_file
pcocc.init()

-- Returns what the filter says and how much it does until then.
local function submit(given)
    local job = stub.job(given)
    stub.messages = {}
    work, counting = 0, true
    debug.sethook(function() work = work + 100 end, "", 100)
    local ok, code = pcall(pcocc.job_submit, job, { vm = { flag_default = 1 } }, 1000)
    debug.sethook()
    counting = false
    assert(ok, code)
    return code
end

local most = 0
for _, one in ipairs(inputs.mebibytes()) do
    local name, given, passes = one[1], one[2], one[3]
    stub.test(name, function()
        local code = submit(given)
        assert(work <= MOST_MEBIBYTE, "it did " .. work)
        most = math.max(most, work)
        assert((code == slurm.SUCCESS) == passes, "it said " .. code)
        if passes then stub.equal(#stub.messages, 0) else stub.said("pcocc: error: ") end
        for _, message in ipairs(stub.messages) do assert(#message <= 600, "a message of " .. #message) end
    end)
end
print("a mebibyte: " .. most)

most = 0
for _, one in ipairs(inputs.largest()) do
    stub.test(one[1], function()
        submit(one[2])
        assert(work <= MOST_LARGEST, "it did " .. work)
        most = math.max(most, work)
    end)
end
print("the most that is accepted: " .. most)

stub.test("ours is found behind what other plugins send", function()
    local env = { [0] = string.rep("a", 1048576) }
    for at = 1, 499 do env[at] = "_SLURM_SPANK_OPTION_other_x=" .. at end
    env[500] = "PCOCC_TEMPLATE=tiny:3"
    local job, written = stub.job({ spank_job_env = env })
    stub.messages = {}
    stub.equal(pcocc.job_submit(job, {}, 1000), 0)
    stub.equal(written.num_tasks, 3)
end)

stub.test("the number of VMs never wraps", function()
    for _, parts in ipairs({ 1, 2, 500, 512 }) do
        local text = string.rep("tiny:999999999999999,", parts - 1) .. "tiny:999999999999999"
        submit({ spank_job_env = { [0] = "PCOCC_TEMPLATE=" .. text } })
        stub.said("VMs are asked for, but this job can have 16 at most")
        assert(not string.find(stub.messages[1], "error: -", 1, true), stub.messages[1])
    end
end)

-- Returns a policy of 200 templates, each for a thousand users.
local function long_policy()
    local policy = { max_vms = 1000, template_access = {} }
    for at = 1, 200 do
        local users = {}
        for number = 1, 999 do users[number] = number end
        users[1000] = "alice"
        policy.template_access["template" .. at] = { users = users }
    end
    return policy
end

stub.test("the policy's lists are gone through once", function()
    local names = {}
    for at = 1, 200 do names[at] = "template" .. at end
    pcocc.load_policy = long_policy
    pcocc.init()
    local given = { spank_job_env = { [0] = "PCOCC_TEMPLATE=" .. table.concat(names, ",") } }
    stub.equal(submit(given), 0)
    local first = work
    stub.equal(submit(given), 0)
    assert(work * 5 < first, string.format("it did %d at first, and %d then", first, work))
end)

stub.finish()
