-- A job_submit.lua for a site that has none: link or copy it to /etc/slurm/job_submit.lua and set
-- JobSubmitPlugins=lua in slurm.conf. A site that has one calls pcocc.job_submit() in it in the same way.

package.path = "/opt/pcocc/share/pcocc/lua/?.lua;" .. package.path
local pcocc = require("pcocc")
pcocc.init()

function slurm_job_submit(job_desc, part_list, submit_uid)
    return pcocc.job_submit(job_desc, part_list, submit_uid)
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return pcocc.job_modify(job_desc, job_rec, part_list, modify_uid)
end
