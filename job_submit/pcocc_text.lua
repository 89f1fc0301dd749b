-- Reads what the submitter of a job wrote. slurmctld serves nobody else meanwhile, so the work is bounded: a length is
-- checked before any pattern is tried, a pattern reads a text only once from one end to the other, and a loop ends at
-- a limit however long its text is. tests/lua/bounds.lua counts the work. Lua 5.1 to 5.4.

local text = {}

local FORM = "write --pcocc-template=TPL[:N][,TPL[:N]...], with N from 1"
local MAX_ENTRIES = 512 -- strings of all SPANK plugins together, among which ours are looked for
local MAX_TEXT = 32768 -- characters of one of our strings: srun takes 16384 of a template text, and adds some :1
local MAX_NAME = 64 -- characters, of a template
local MAX_PARTS = 512 -- of a template text
local MAX_KEYS = 16 -- of a size line, where srun writes five
local MAX_SHOWN = 200
local MAX_DIGITS = 15 -- a double holds such numbers exactly
local MAX_CPUS = 4096
local KEPT_LENGTH = tonumber("@=KEPT_LENGTH@")
local MAX_MEMORY = 1073741824 -- MiB

text.MAX_WORDS = 128 -- of a list such as a job's partitions
text.MAX_WORDS_TEXT = 4096

-- Returns the beginning of a text as one line.
function text.trim(line)
    return (string.gsub(string.sub(line, 1, MAX_SHOWN), "%c", "?"))
end

-- The beginnings of our strings, found by their first eight characters. The build replaces the names between @ by
-- rows of documents/wire*.py.
local BEGINNINGS = {}
for beginning, kind in pairs({
    ["_@=SENT_OPTION@@=OPTION_TEMPLATE@="] = "typed",
    ["@=SENT_OPTION@@=OPTION_TEMPLATE@="] = "typed",
    ["@=JOB_TEMPLATE@="] = "canonical",
    ["@=JOB_SIZE@="] = "size",
    ["@=JOB_KEPT@="] = "kept",
}) do
    assert(not string.find(beginning, "@"), "pcocc_text.lua is not installed: meson install makes one that works")
    BEGINNINGS[string.sub(beginning, 1, 8)] = { kind = kind, text = beginning }
end

-- Returns the template text, the size line and the name of the kept file from the strings that SPANK plugins send with
-- a job, nil for each that is missing. A text that is too long is cut, but is still too long for its reader. Strings
-- after the first MAX_ENTRIES are ignored: plugins send fewer, and a user who forges so many could also leave ours out.
function text.find_request(spank_env)
    if type(spank_env) ~= "table" then
        return nil
    end
    local found, looked = {}, 0
    for _, entry in pairs(spank_env) do -- indexed from 0
        looked = looked + 1
        if looked > MAX_ENTRIES then
            break
        end
        local ours = BEGINNINGS[string.sub(entry, 1, 8)]
        if ours and not found[ours.kind] and string.sub(entry, 1, #ours.text) == ours.text then
            found[ours.kind] = string.sub(entry, #ours.text + 1, #ours.text + MAX_TEXT + 1)
        end
    end
    return found.typed or found.canonical, found.size, found.kept
end

-- Returns the job's AdminComment with the name of the file that keeps its cluster added, or the comment alone when that
-- is not a name.
function text.add_kept(comment, kept)
    if not kept or #kept ~= KEPT_LENGTH or not string.match(kept, "^%x+$") then
        return comment
    end
    return (comment and comment ~= "" and comment .. " " or "") .. "@=KEPT_MARK@" .. kept
end

-- Adds a word to a list unless it is there already, which list[word] tells.
function text.add(list, word)
    if not list[word] then
        list[#list + 1], list[word] = word, true
    end
end

-- Returns the different words of a text as such a list, or nil when there are too many.
function text.split(line)
    local words, count = {}, 0
    if #line > text.MAX_WORDS_TEXT then
        return nil
    end
    for word in string.gmatch(line, "[^,%s]+") do
        count = count + 1
        if count > text.MAX_WORDS then
            return nil
        end
        text.add(words, word)
    end
    return words
end

local byte = string.byte

-- Tells whether a name may begin with this character.
local function is_letter(code)
    return code and ((code >= 97 and code <= 122) or (code >= 65 and code <= 90) or (code >= 48 and code <= 57))
end

local function to_count(digits)
    local number = #digits <= MAX_DIGITS and string.match(digits, "^%+?%d+$") and tonumber(digits)
    return number and number >= 1 and number or nil
end

-- Returns {names = {...}, total = N} of a template text, each name once, or nil and what is wrong with it.
function text.parse_template(line)
    if #line > MAX_TEXT then
        return nil, string.format("--pcocc-template is longer than %d characters; %s", MAX_TEXT, FORM)
    end
    local names, total, parts, counts = {}, 0, 0, { [""] = 1 }
    for name, colon, count in string.gmatch(line .. ",", "([%w_./-]*)(:?)([^,]*),") do
        parts = parts + 1
        if parts > MAX_PARTS then
            return nil, string.format(
                "--pcocc-template has more than %d parts; write each template once, as TPL:N", MAX_PARTS)
        end
        if #name > MAX_NAME or not is_letter(byte(name)) or (colon == "" and count ~= "") then
            return nil, string.format("'%s' is not the name of a template; %s", text.trim(name .. colon .. count), FORM)
        end
        local number = counts[count] or to_count(count)
        if not number or (colon ~= "" and count == "") then
            return nil, string.format("'%s' is not a number of VMs of template '%s'; %s", text.trim(count), name, FORM)
        end
        if not names[name] then
            names[#names + 1], names[name] = name, true
        end
        counts[count] = number
        total = total + number -- no more than MAX_PARTS numbers of 15 digits: 64 bits hold the sum
    end
    return { names = names, total = total }
end

-- Returns a number, `most` when it is larger; nil unless the text is digits only: "inf" and "1e300" must not reach a
-- C integer.
local function to_number(digits, most)
    local number = digits and #digits <= MAX_DIGITS and string.match(digits, "^%d+$") and tonumber(digits)
    return number and math.min(number, most) or nil
end

-- Returns the sizes in a line such as vms=2;cpus=1;memory=512;sets=default:2, or nil and what is wrong with it. The
-- user may have forged all of them.
function text.parse_size(line)
    local size, keys = {}, 0
    local bounded = #line <= MAX_TEXT and line .. ";" or string.rep(";", MAX_KEYS + 1)
    for key, value in string.gmatch(bounded, "([^;=]*)=?([^;]*);") do
        keys = keys + 1
        if keys > MAX_KEYS then
            local form = "@=JOB_SIZE@ has more than %d characters or %d words; srun and sbatch write it: leave it"
            return nil, string.format(form, MAX_TEXT, MAX_KEYS)
        end
        size[key] = value
    end
    size.cpus, size.memory = to_number(size.cpus, MAX_CPUS), to_number(size.memory, MAX_MEMORY)
    size.exclusive = size.exclusive == "1"
    return size
end

-- Adds the names in a text such as default:2,gpu:1 to such a list; returns false when there are too many.
function text.add_names(list, line)
    local parts = 0
    for name in string.gmatch(line .. ",", "([^,:]*)[^,]*,") do
        parts = parts + 1
        if parts > MAX_PARTS then
            return false
        end
        text.add(list, name)
    end
    return true
end

return text
