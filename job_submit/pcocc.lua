-- The job_submit filter of pcocc, a module for a site's own job_submit.lua:
--
--     package.path = "/opt/pcocc/share/pcocc/lua/?.lua;" .. package.path
--     local pcocc = require("pcocc")
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         local rc = pcocc.job_submit(job_desc, part_list, submit_uid)
--         if rc ~= slurm.SUCCESS then return rc end
--         ... the site's own rules; one that gives a job GRES stands before pcocc's, which looks for those of VMs ...
--     function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
--         return pcocc.job_modify(job_desc, job_rec, part_list, modify_uid)
--
-- It gives the job one task for each VM, takes CPUs and memory from the templates if the user named none, and refuses
-- a job that contradicts this, or that the site's policy forbids. It runs under slurmctld's locks, so it opens no file
-- and starts no process for a job; pcocc_text.lua reads what the submitter wrote, within bounds. The policy is read
-- once, when slurmctld loads the script; `pcocc config policy` writes it. Lua 5.1 to 5.4.

local text = require("pcocc_text")
local keys = require("pcocc_keys")
local devices = require("pcocc_devices")

local pcocc = {}

pcocc.policy_file = "/etc/pcocc/policy.lua"

local MAX_VMS = 65536 -- whatever the policy says: Slurm's fields of 32 and 16 bits hold no more

-- Returns a refusal: the text that the user reads, and the error code of Slurm that comes closest to it.
local function refusal(code, text, ...)
    return { code = slurm[code] or slurm.ERROR, text = string.format(text, ...) }
end

-- Tells whether a field is set. Slurm has a "not set" value for each width of field; the one of 64 bits arrives here
-- rounded to a double.
local function is_set(value)
    if type(value) ~= "number" or value == 0 then
        return false
    end
    return value ~= slurm.NO_VAL and value ~= slurm.NO_VAL16 and value < 4294967294
end

-- Returns the largest number of CPUs and the largest memory (MiB) that these templates set, 0 when none sets one, and
-- whether one of them wants whole nodes.
local function template_size(names, templates)
    local cpus, memory, exclusive = 0, 0, false
    for _, name in ipairs(names) do
        local template = templates[name] or {}
        cpus = math.max(cpus, template.cpus or 0)
        memory = math.max(memory, template.memory or 0)
        exclusive = exclusive or template.full_node == true
    end
    return cpus, memory, exclusive
end

local function default_partition(part_list)
    for name, part in pairs(part_list or {}) do
        if part.flag_default == 1 then
            return name
        end
    end
end

local KINDS = { "users", "accounts", "partitions", "qos" }
local NOUNS = { users = "user", accounts = "account", partitions = "partition", qos = "QOS" }

-- Returns the job's user, account, partitions and QOS as lists, or nil and a refusal; what the user did not name is
-- Slurm's default.
local function describe_job(job_desc, part_list)
    local job, texts = {}, {
        users = job_desc.user_name,
        accounts = job_desc.account or job_desc.default_account,
        partitions = job_desc.partition or default_partition(part_list),
        qos = job_desc.qos or job_desc.default_qos,
    }
    for _, kind in ipairs(KINDS) do
        job[kind] = text.split(texts[kind] or "")
        if not job[kind] then
            return nil, refusal("ERROR", "the job's %s is a list of more than %d words or %d characters; name fewer", NOUNS[kind],
                text.MAX_WORDS, text.MAX_WORDS_TEXT)
        end
    end
    return job
end

local members = setmetatable({}, { __mode = "k" }) -- of each list of the policy that was looked at

-- Returns the words of a list of the policy as keys. Such a list may be long, and a job may name hundreds of templates,
-- each with a list: so they are made once.
local function members_of(list)
    local known = members[list] or {}
    for _, item in ipairs(members[list] and {} or list) do
        known[item] = true
    end
    members[list] = known
    return known
end

-- Returns whether all words of a job, such as its partitions, are in a list of the policy.
local function has_all(list, words)
    local known = members_of(list)
    for _, word in ipairs(words) do
        if not known[word] then
            return false
        end
    end
    return #words > 0
end

local function has_one(list, words)
    local known = members_of(list)
    for _, word in ipairs(words) do
        if known[word] then
            return true
        end
    end
    return false
end

-- Returns the first kind (users, accounts, ...) of which a rule has a list that does not admit the job, or nil.
local function find_bar(rule, job, has)
    for _, kind in ipairs(KINDS) do
        if rule[kind] and #rule[kind] > 0 and not has(rule[kind], job[kind]) then
            return kind
        end
    end
end

local function check_access(what, name, rule, job)
    local kind = rule and find_bar(rule, job, has_all)
    if kind then
        local given = text.trim(table.concat(job[kind], ","))
        return refusal("ESLURM_ACCESS_DENIED", "%s '%s' is not for %s '%s'; it is for: %s", what, name, NOUNS[kind],
            given, table.concat(rule[kind], ", "))
    end
end

-- Returns the resource sets of the request, each once, or nil when the policy does not know one of its templates.
local function find_sets(request, size, templates)
    local sets = {}
    for _, name in ipairs(request.names) do
        if templates[name] then
            text.add(sets, templates[name].resource_set or "")
        elseif not size.sets then
            return nil
        end
    end
    return text.add_names(sets, size.sets or "") and sets or nil
end

-- Returns a refusal when the site's policy forbids the request, or nil.
function pcocc.check_policy(policy, request, size, job)
    local limit = math.min(policy.max_vms or MAX_VMS, MAX_VMS)
    for _, rule in ipairs(policy.limits or {}) do
        if not find_bar(rule, job, has_one) then -- of several partitions it may run in each
            limit = math.min(limit, rule.max_vms)
        end
    end
    if request.total > limit then
        return refusal("ESLURM_ACCOUNTING_POLICY", "%d VMs are asked for, but this job can have %d at most", request.total, limit)
    end
    for _, name in ipairs(request.names) do
        local denied = check_access("template", name, (policy.template_access or {})[name], job)
        if denied then
            return denied
        end
    end
    local rules = policy.set_access or {}
    if next(rules) == nil then
        return nil
    end
    local sets = find_sets(request, size, policy.templates or {})
    if not sets then
        return refusal("ESLURM_ACCESS_DENIED", "the site's policy file does not know the resource sets of these templates")
    end
    for _, name in ipairs(sets) do
        local denied = check_access("resource set", name, rules[name], job)
        if denied then
            return denied
        end
    end
end

-- Returns whether sbatch has computed the number of tasks itself, from --ntasks-per-node and -N.
local function is_derived(tasks, per_node, nodes)
    return is_set(per_node) and tasks == per_node * (is_set(nodes) and nodes or 1)
end

-- Returns a refusal when the user's own sizes contradict one task per VM, or nil.
function pcocc.check_conflict(job_desc, vms)
    if is_set(job_desc.het_job_offset) or job_desc.het_job_offset == 0 then
        return refusal("ERROR", "a heterogeneous job cannot have a virtual cluster; submit the parts as jobs of their own")
    end
    local tasks, per_node = job_desc.num_tasks, job_desc.ntasks_per_node
    local least, most = job_desc.min_nodes, job_desc.max_nodes
    if is_set(tasks) and tasks ~= vms and not is_derived(tasks, per_node, least) then
        return refusal("ERROR", "-n says %d, but --pcocc-template says %d VMs: each VM is one task; leave -n out", tasks, vms)
    end
    if is_set(least) and least > vms then
        return refusal("ESLURM_INVALID_NODE_COUNT", "-N says %d, but --pcocc-template says %d VMs: each node needs a VM",
            least, vms)
    end
    if is_set(per_node) and is_set(most) and per_node * most < vms then
        return refusal("ESLURM_INVALID_NODE_COUNT", "%d VMs do not fit on %d nodes with --ntasks-per-node=%d", vms, most,
            per_node)
    end
end

-- Returns a refusal when the user's own sizes contradict a node for each VM, or nil.
function pcocc.check_exclusive(job_desc, vms)
    local per_node, most = job_desc.ntasks_per_node, job_desc.max_nodes
    if is_set(per_node) and per_node ~= 1 then
        return refusal("ERROR", "--ntasks-per-node says %d, but each of these VMs takes a whole node: leave it out", per_node)
    end
    if is_set(most) and most < vms then
        return refusal("ESLURM_INVALID_NODE_COUNT", "-N says %d, but each of %d VMs takes a whole node: leave -N out", most, vms)
    end
end

-- Gives each VM a whole node, as --exclusive, --mem=0 and --ntasks-per-node=1 would.
function pcocc.take_nodes(job_desc, vms)
    job_desc.shared = 0
    job_desc.ntasks_per_node = 1
    job_desc.min_nodes = vms
    if not (job_desc.min_mem_per_cpu or job_desc.min_mem_per_node or job_desc.mem_per_tres) then
        job_desc.min_mem_per_node = 0
    end
end

-- Makes the job as large as its virtual cluster; sizes that the user gave stay.
function pcocc.size_job(job_desc, vms, cpus, memory)
    job_desc.num_tasks = vms
    if not is_set(job_desc.cpus_per_task) and cpus > 1 then
        job_desc.cpus_per_task = cpus
    end
    -- sbatch has computed this from its own number of tasks, and slurmctld would trust it
    job_desc.min_cpus = vms * (is_set(job_desc.cpus_per_task) and job_desc.cpus_per_task or 1)
    local given = job_desc.min_mem_per_cpu or job_desc.min_mem_per_node or job_desc.mem_per_tres
    if not given and memory > 0 then
        local shared_by = is_set(job_desc.cpus_per_task) and job_desc.cpus_per_task or 1
        job_desc.min_mem_per_cpu = math.ceil(memory / shared_by)
    end
    local nodes = is_set(job_desc.min_nodes) and job_desc.min_nodes or 1
    if is_set(job_desc.ntasks_per_node) then
        job_desc.min_nodes = math.max(nodes, math.ceil(vms / job_desc.ntasks_per_node))
    elseif nodes > 1 then
        job_desc.ntasks_per_node = math.ceil(vms / nodes) -- else Slurm fills the first node
    end
end

-- Returns the policy, or nil and what is wrong with its file; without a file the policy is empty.
function pcocc.load_policy(path)
    local file = io.open(path, "r")
    if not file then
        return {}
    end
    file:close()
    local chunk, problem = loadfile(path)
    if not chunk then
        return nil, problem
    end
    local ok, policy = pcall(chunk)
    if not ok or type(policy) ~= "table" then
        return nil, path .. " does not return a table"
    end
    return policy
end

local policy, policy_problem

-- Reads the policy once; the sample script calls this when slurmctld loads it.
function pcocc.init()
    policy, policy_problem = pcocc.load_policy(pcocc.policy_file)
    keys.forget()
    if not policy then
        slurm.log_error("pcocc: %s: write it anew with 'pcocc config policy'", policy_problem)
    end
end

-- Returns a refusal when a licence that somebody asks for is the key of a partition, which only the filter gives out,
-- or nil.
local function check_licences(job_desc, pools)
    for field, option in pairs({ licenses = "licenses", tres_per_task = "tres-per-task" }) do
        local line = job_desc[field] or ""
        if #line > text.MAX_WORDS_TEXT then
            return refusal("ERROR", "--%s is longer than %d characters; name fewer", option, text.MAX_WORDS_TEXT)
        end
        local word = keys.find_typed(line, pools)
        if word then
            local form = "the licence '%s' is the key of a partition, which pcocc itself gives to a cluster: leave it out"
            return refusal("ESLURM_ACCESS_DENIED", form, text.trim(word))
        end
    end
end

-- Gives the job the licence of a key for each of its networks with partitions, before the licences that the user asks
-- for; returns a refusal when it cannot have them.
function pcocc.give_keys(job_desc, request, size, rules, jobs)
    local sets = find_sets(request, size, rules.templates or {}) or {}
    local networks = keys.networks_of(sets, rules.set_partitions or {})
    for _, network in ipairs(networks) do
        local most = rules.partitions[network].max_vms
        if request.total > most then
            local form = "%d VMs are asked for, but a cluster on network '%s' can have %d at most"
            return refusal("ERROR", form, request.total, network, most)
        end
    end
    if #networks == 0 then
        return nil
    end
    local own = job_desc.licenses or ""
    if string.find(own, "|", 1, true) then
        return refusal("ERROR", "this job gets the licence of a partition, so --licenses cannot have '|'; name one licence")
    end
    local names = keys.choose(rules.partitions, networks, jobs)
    names[#names + 1] = own ~= "" and own or nil
    job_desc.licenses = table.concat(names, ",")
end

local function examine(job_desc, part_list, template, size_line)
    if not policy then
        return refusal("ERROR", "the site's policy file is damaged; tell the administrator")
    end
    local request, problem = text.parse_template(template)
    local size, other_problem = text.parse_size(size_line or "")
    if problem or other_problem then
        return refusal("ERROR", "%s", problem or other_problem)
    end
    local job, wrong = describe_job(job_desc, part_list)
    wrong = wrong or pcocc.check_policy(policy, request, size, job) or pcocc.check_conflict(job_desc, request.total)
    if wrong then
        return wrong
    end
    local cpus, memory, exclusive = template_size(request.names, policy.templates or {})
    if exclusive or size.exclusive then
        wrong = pcocc.check_exclusive(job_desc, request.total)
        if wrong then
            return wrong
        end
        pcocc.take_nodes(job_desc, request.total)
    end
    pcocc.size_job(job_desc, request.total, size.cpus or cpus, size.memory or memory)
    local nodes = is_set(job_desc.max_nodes) and math.min(job_desc.max_nodes, request.total) or request.total
    problem = devices.find_lack(job_desc, size.sets or "", policy.set_devices or {}, request.total, nodes)
    if problem then
        return refusal("ERROR", "%s", problem)
    end
    return policy.partitions and pcocc.give_keys(job_desc, request, size, policy, slurm.jobs)
end

local function know_policy()
    if not policy and not policy_problem then
        pcocc.init()
    end
    return policy or {}
end

local function tell(wrong)
    slurm.log_user("%s", "pcocc: error: " .. wrong.text)
    return wrong.code
end

-- Checks and sizes a job with a virtual cluster. Any other job passes at once, unless it asks for a partition's key.
-- Returns slurm.SUCCESS or an error code.
function pcocc.job_submit(job_desc, part_list, _submit_uid)
    local pools = (job_desc.licenses or job_desc.tres_per_task) and know_policy().partitions
    local wrong = pools and check_licences(job_desc, pools)
    if wrong then
        return tell(wrong)
    end
    local template, size_line, kept = text.find_request(job_desc.spank_job_env)
    if not template then
        return slurm.SUCCESS
    end
    know_policy()
    wrong = examine(job_desc, part_list, template, size_line)
    if wrong then
        return tell(wrong)
    end
    local comment = text.add_kept(job_desc.admin_comment, kept)
    if kept and comment then
        job_desc.admin_comment = comment
    end
    return slurm.SUCCESS
end

-- Lets nobody who changes a job drop the key that its VMs use, which slurmctld would give to the next job at once, or
-- take a key.
function pcocc.job_modify(job_desc, job_rec, _part_list, _modify_uid)
    local pools = job_desc.licenses and know_policy().partitions
    if not pools then
        return slurm.SUCCESS
    end
    if keys.find_typed(job_rec.licenses or "", pools) then
        local why = "the licences of a job with a partition cannot be changed: its VMs use the key"
        return tell(refusal("ESLURM_ACCESS_DENIED", why))
    end
    local wrong = check_licences(job_desc, pools)
    return wrong and tell(wrong) or slurm.SUCCESS
end

return pcocc
