/* How many tasks an srun has, and where: one for each VM. srun is told by variables, because it reads these before
 * it knows our options. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct target target;

/* Returns the number of VMs of `TPL[:N],...`, or 0 for a text of another form, which the request's check will refuse. */
static long count_vms(const char *template)
{
	long total = 0;

	while (template && *template) {
		const char *end = strchrnul(template, ',');
		const char *colon = memchr(template, ':', (size_t)(end - template));
		char *rest = NULL;
		long count = colon ? strtol(colon + 1, &rest, 10) : 1;
		if ((colon && (rest != end || rest == colon + 1)) || count < 1 || count > 0x3ffff)
			return 0;
		total += count;
		template = *end ? end + 1 : end;
	}
	return total;
}

/* Returns the number of VMs of the job that a VM step belongs to: from the environment, from the boot step, or from
 * the file that was kept for the job; 0 outside of jobs. */
long count_job_vms(void)
{
	struct boot_step boot;

	if (getenv(ENV_TEMPLATE))
		return count_vms(getenv(ENV_TEMPLATE));
	if (!target.job) /* for slurmctld, 0 means all jobs: other jobs' VMs would be taken for this one's */
		return 0;
	if (find_boot_step(target.job, &boot) && boot.running)
		return boot.vms;
	return recall_cluster(target.job) ? count_vms(getenv(ENV_TEMPLATE)) : 0;
}

static long count_set(const char *set)
{
	hosts_t hosts = slurm_hostlist_create(set);
	if (!hosts)
		return 0;
	slurm_hostlist_uniq(hosts);
	long count = slurm_hostlist_count(hosts);
	slurm_hostlist_destroy(hosts);
	return count;
}

static bool is_named(const job_info_t *job, uint32_t first, char sign, uint32_t second)
{
	if (sign == '_')
		return job->array_job_id == first && job->array_task_id == second;
	return job->het_job_id == first && job->het_job_offset == second;
}

/* Returns the number of a job written as 5, as 5_3 (a task of an array) or as 5+1 (a part of a heterogeneous job); 0 for
 * no job, for other texts, which srun itself refuses, and when slurmctld does not answer. */
static uint32_t job_number(const char *text)
{
	char *rest = NULL, *end = NULL;
	uint32_t first = text ? (uint32_t)strtoul(text, &rest, 10) : 0, found = 0;
	job_info_msg_t *jobs = NULL;

	if (!first || !*rest)
		return first;
	uint32_t second = (uint32_t)strtoul(rest + 1, &end, 10);
	if ((*rest != '_' && *rest != '+') || end == rest + 1 || *end || load_job(first, &jobs))
		return 0;
	for (uint32_t i = 0; i < jobs->record_count && !found; i++)
		if (is_named(&jobs->job_array[i], first, *rest, second))
			found = jobs->job_array[i].job_id;
	slurm_free_job_info_msg(jobs);
	return found;
}

/* Returns the number of tasks: of a step, the VMs of its set; of a new job, its VMs; 0 to leave it to srun. */
static long count_tasks(const char *set, const char *template)
{
	if (set && !strncmp(set, "vm", 2))
		return count_set(set);
	if (target.in_job) /* salloc names only a number of tasks that was typed */
		return set && !getenv("SLURM_NTASKS") ? count_job_vms() : 0;
	return count_vms(template);
}

/* Finds the job that this srun makes a step of. */
void find_target(const struct words *typed)
{
	uint32_t here = job_number(getenv("SLURM_JOB_ID"));
	uint32_t job = typed->job ? job_number(typed->job) : here;

	target = (struct target){ .in_job = job || getenv("SLURM_JOB_ID"), .job = job, .other = job != here ? job : 0 };
}

/* Sets the size of this srun by variables; options that the user typed, such as -n, win over them. */
void size_srun(const struct words *typed)
{
	char number[24];
	uint32_t job = target.job;

	const char *set = typed->no_vm ? NULL : typed->vm ? typed->vm : read_variable(VAR_VM);
	long count = count_tasks(set, typed->template ? typed->template : read_variable(VAR_TEMPLATE));
	if (count <= 0)
		return;
	snprintf(number, sizeof(number), "%ld", count);
	setenv("SLURM_NTASKS", number, 1);
	setenv("SLURM_NPROCS", number, 1);
	if (target.in_job && set && !strncmp(set, "vm", 2) && job && place_tasks(job, set, count, typed))
		return;
	const char *nodes = getenv("SLURM_NNODES");
	if (nodes && strtol(nodes, NULL, 10) > count) {
		unsetenv("SLURM_NNODES");
		unsetenv("SLURM_JOB_NUM_NODES");
	}
}
