-- Tells whether a job asks Slurm for the devices that its VMs need. Resource sets and templates say what they need;
-- --gres and similar options say what the job asks for. On the nodes root gives VMs only what slurmctld has given to
-- the job; the check here tells the user early. Lua 5.1 to 5.4.

local text = require("pcocc_text")

local devices = {}

local MAX_PARTS = 512 -- of a list of resource sets
local MAX_WISHES = 4096 -- characters of what templates of that list want themselves; root on the nodes counts what is behind them
local MAX_NEEDS = 16 -- different GRES of a job's VMs that are counted
local MAX_COUNT = 1000000000 -- devices that are needed: more of them must not wrap
local MAX_ASKED = 32 -- words of --gres that are counted; a job with more of them is let through

local function add(needs, gres, count)
    if not needs[gres] and #needs < MAX_NEEDS then
        needs[#needs + 1], needs[gres] = gres, 0
    end
    needs[gres] = needs[gres] and math.min(needs[gres] + math.min(count, MAX_COUNT), MAX_COUNT)
end

-- Returns a number of at most nine digits.
local function to_number(digits)
    return tonumber(string.sub(digits, 1, 9)) or 0
end

-- Returns how many of each GRES the VMs of a text such as default:2,gpu:1:nvme::1 need together: a list of the names,
-- in which each name is also a key that leads to its number.
local function count_needs(line, set_devices)
    local needs, parts, wishes = {}, 0, 0
    for part in string.gmatch(line, "[^,]+") do
        parts = parts + 1
        local set, count, own = string.match(part, "^([%w_.-]+):(%d+)(.*)$")
        wishes = wishes + #(own or "")
        if parts > MAX_PARTS or not set or wishes > MAX_WISHES then
            break
        end
        count = to_number(count)
        for gres, number in pairs(set_devices[set] or {}) do
            add(needs, gres, count * number)
        end
        for name, kind, number in string.gmatch(own, ":(%a[%w_]*):([%w_.-]*):(%d+)") do
            add(needs, kind ~= "" and name .. ":" .. kind or name, count * to_number(number))
        end
    end
    table.sort(needs)
    return needs
end

-- Adds to a list what a text such as gres:gpu:a100:2,gres/nic=1 asks for, each number times `times`. Returns false when
-- the text is too long to be read.
local function add_asked(asked, line, times)
    if #line > text.MAX_WORDS_TEXT then
        return false
    end
    for word in string.gmatch(line, "[^,]+") do
        if #asked == MAX_ASKED then
            return false
        end
        local name, rest = string.match((string.gsub(word, "^gres[:/]", "")), "^(%a[%w_]*)(.*)$")
        if name then
            local count = string.match(rest, "[:=](%d+%a?)$") -- 2K are many
            local kind = string.match((string.gsub(rest, "[:=]%d+%a?$", "")), "^:(.+)$")
            count = not count and 1 or string.find(count, "%a") and math.huge or to_number(count)
            asked[#asked + 1] = { name = name, kind = kind, count = count > 0 and count * times or 0 }
        end
    end
    return true
end

-- Returns how many of a GRES are asked for. Where only one side names a type, the other side may mean that type, too.
local function find_asked(asked, gres)
    local name, kind = string.match(gres, "^([^:]*):?(.*)$")
    local found = 0
    for _, one in ipairs(asked) do
        if one.name == name and (kind == "" or not one.kind or one.kind == kind) then
            found = found + one.count
        end
    end
    return found
end

-- Returns a sentence if a job asks for fewer devices than its VMs need, even if it gets as many as `nodes` nodes; else
-- nil.
function devices.find_lack(job_desc, line, set_devices, vms, nodes)
    local needs, asked = count_needs(line, set_devices), {}
    if #needs == 0 then
        return nil
    end
    for field, times in pairs({ tres_per_node = nodes, tres_per_task = vms, tres_per_job = 1, tres_per_socket = math.huge }) do
        if not add_asked(asked, job_desc[field] or "", times) then
            return nil
        end
    end
    for _, gres in ipairs(needs) do
        local given = find_asked(asked, gres)
        if given < needs[gres] then
            local form = "the VMs need %d devices of GRES %s, but the job asks for %d: write --gres=%s:N for N on each node"
            return string.format(form, needs[gres], text.trim(gres), given, text.trim(gres))
        end
    end
end

return devices
