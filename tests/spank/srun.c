/* Stands in for srun: reads its own command line and sizes itself as the plugin does, and prints what came of it as JSON.
 *
 * BOOT=VMS:NODES is the job's boot step, 0:0 that none runs; without it slurmctld does not answer. KEPT is the template of a job
 * whose cluster is kept. With PROGRAMS it only prints what the plugin makes of such a file of programs. */
#include "../../spank/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long vms, nodes;

bool find_boot_step(uint32_t job, struct boot_step *found)
{
	(void)job;
	*found = (struct boot_step){ .running = vms > 0, .id = 1, .age = 7, .vms = vms };
	return getenv("BOOT") != NULL;
}

slurm_step_layout_t *slurm_job_step_layout_get(slurm_step_id_t *id)
{
	static slurm_step_layout_t layout;
	static uint16_t counts[16];
	static uint32_t ranks[64], *ids[16];
	static char names[64];

	(void)id;
	snprintf(names, sizeof(names), "n[1-%ld]", nodes);
	layout = (slurm_step_layout_t){ .node_cnt = (uint32_t)nodes, .node_list = names, .task_cnt = (uint32_t)vms, .tasks = counts, .tids = ids };
	for (long node = 0, rank = 0; node < nodes; node++)
		for (ids[node] = ranks + rank; rank < (node + 1) * vms / nodes; counts[node]++)
			ranks[rank] = (uint32_t)rank, rank++;
	return &layout;
}

void slurm_job_step_layout_free(slurm_step_layout_t *layout)
{
	(void)layout;
}

/* JOBS="NUMBER FIRST[_+]SECOND" is all that slurmctld knows. */
#if HAVE_JOB_BY_ID
int slurm_load_job(job_info_msg_t **found, slurm_step_id_t job, uint16_t flags)
#else
int slurm_load_job(job_info_msg_t **found, uint32_t job, uint16_t flags)
#endif
{
	static slurm_job_info_t one;
	static job_info_msg_t all = { .record_count = 1, .job_array = &one };
	uint32_t first = 0, second = 0;
	char sign = 0;

	(void)job;
	(void)flags;
	if (!getenv("JOBS") || sscanf(getenv("JOBS"), "%u %u%c%u", &one.job_id, &first, &sign, &second) != 4)
		return -1;
	one.array_job_id = sign == '_' ? first : 0;
	one.array_task_id = sign == '_' ? second : NO_VAL;
	one.het_job_id = sign == '+' ? first : 0;
	one.het_job_offset = sign == '+' ? second : NO_VAL;
	*found = &all;
	return 0;
}

void slurm_free_job_info_msg(job_info_msg_t *jobs)
{
	(void)jobs;
}

bool recall_cluster(uint32_t job)
{
	(void)job;
	return getenv("KEPT") && !setenv(ENV_TEMPLATE, getenv("KEPT"), 1);
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
	(void)spank;
	return item == S_JOB_ARGV ? ESPANK_NOT_AVAIL : ESPANK_BAD_ARG;
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *option)
{
	(void)spank;
	(void)option;
	return ESPANK_SUCCESS;
}

static void print(const char *name, const char *value)
{
	if (value)
		printf("\"%s\": \"%s\", ", name, value);
}

int main(void)
{
	struct words typed;
	static const char *const variables[] = { "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_DISTRIBUTION" };
	char places[512] = "", *hostfile = NULL;

	if (getenv("PROGRAMS")) {
		fputs(render_programs(getenv("PROGRAMS")), stdout);
		return 0;
	}
	if (getenv("BOOT"))
		sscanf(getenv("BOOT"), "%ld:%ld", &vms, &nodes);
	read_own_words(&typed);
	printf("{");
	print("template", typed.template);
	print("vm", typed.vm);
	print("job", typed.job);
	print("tasks", typed.tasks);
	print("no_vm", typed.no_vm ? "1" : NULL);
	print("placed", typed.placed ? "1" : NULL);
	print("export", typed.exported);
	print("command", typed.command);
	print("set", typed.command ? find_set(typed.command) : NULL);
	print("bcast", typed.bcast ? "1" : NULL);
	print("no_shell", typed.no_shell ? "1" : NULL);
	print("programs", typed.programs ? "1" : NULL);
	forget_inherited_options();
	for (char **at = environ; *at; at++)
		if (!strncmp(*at, "SLURM_SPANK_", 12))
			print("inherited", *at);
	find_target(&typed);
	if (!target.in_job || target.other)
		drop_job_variables();
	size_srun(&typed);
	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		print(variables[i], getenv(variables[i]));
	if ((hostfile = getenv("SLURM_HOSTFILE"))) {
		FILE *file = fopen(hostfile, "r");
		for (size_t at = 0; file && fgets(places + at, 64, file);) {
			while (places[at] != '\n')
				at++;
			places[at++] = ' ';
			places[at] = '\0';
		}
		print("places", places);
	}
	printf("\"in_job\": %d, \"other\": %u, \"vms\": %ld}\n", target.in_job, target.other, count_job_vms());
	return 0;
}
