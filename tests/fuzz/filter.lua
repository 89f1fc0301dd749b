-- Submits a job for each line: its strings in hex, with a NUL between two; answers `ok`, or how the filter failed.
-- Arguments: the directory of the filter, and a policy file.

package.path = arg[1] .. "/?.lua;" .. string.match(arg[0], "^(.*)/") .. "/../lua/?.lua;" .. package.path
local stub = require("stub")
local pcocc = require("pcocc")
pcocc.policy_file = arg[2]

for line in io.lines() do
    local env, count = {}, 0
    local bytes = string.gsub(line, "%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
    for word in string.gmatch(bytes .. "\0", "([^%z]*)%z") do
        env[count], count = word, count + 1
    end
    stub.messages = {}
    local job = stub.job({ spank_job_env = env, partition = env[1], account = env[2], qos = env[3], licenses = env[4] })
    local ok, problem = pcall(pcocc.job_submit, job, { vm = { flag_default = 1 } }, 1000)
    if ok and problem ~= 0 and #stub.messages == 0 then
        ok, problem = false, "refused without a word"
    end
    io.write(ok and "ok" or string.gsub(tostring(problem), "%c", "?"), "\n")
    io.flush()
end
