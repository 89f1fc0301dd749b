/* Places a step that runs in some of a job's VMs on the nodes of these VMs: their shared ssh connections and sockets
 * are there. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int places = -1; /* a file in memory with the node of each task, one a line: srun's SLURM_HOSTFILE */

/* Tells whether the user says where srun's tasks run, in its words or in its environment. */
static bool is_placed(const struct words *typed, long tasks)
{
	static const char *const variables[] = { "SLURM_HOSTFILE", "SLURM_DISTRIBUTION", "SLURM_NTASKS_PER_NODE",
						 "SLURM_NTASKS_PER_GPU", "SLURM_NTASKS_PER_TRES", "SLURM_SPREAD_JOB",
						 "SLURM_USE_MIN_NODES", "SLURM_HET_SIZE" };

	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		if (getenv(variables[i]))
			return true;
	return typed->placed || (typed->tasks && strtol(typed->tasks, NULL, 10) != tasks);
}

/* Returns the name of each VM's node; the caller frees the names and the array. NULL when they are not needed (for
 * a step in all VMs, which Slurm places as it has placed these, or when all are on one node), and when slurmctld
 * does not answer. */
static char **read_nodes(uint32_t job, long tasks, long *vms)
{
	struct boot_step boot;
	char **names = NULL;

	if (!find_boot_step(job, &boot) || !boot.running || boot.vms <= tasks)
		return NULL;
	slurm_step_id_t id = id_of_step(job, boot.id);
	slurm_step_layout_t *layout = slurm_job_step_layout_get(&id);
	if (!layout)
		return NULL;
	hosts_t nodes = slurm_hostlist_create(layout->node_list);
	if (layout->node_cnt > 1 && nodes && slurm_hostlist_count(nodes) == (int)layout->node_cnt)
		names = calloc(layout->task_cnt, sizeof(*names));
	*vms = names ? (long)layout->task_cnt : 0;
	for (uint32_t node = 0; names && node < layout->node_cnt; node++) {
		char *name = slurm_hostlist_shift(nodes);
		for (uint32_t task = 0; name && task < layout->tasks[node]; task++)
			if (layout->tids[node][task] < layout->task_cnt)
				names[layout->tids[node][task]] = strdup(name);
		free(name);
	}
	slurm_hostlist_destroy(nodes);
	slurm_job_step_layout_free(layout);
	return names;
}

/* Writes the node of each VM of a set in the order of the tasks. Returns the number of different nodes, 0 when one
 * is unknown. */
static long write_places(hosts_t wanted, char *const *names, long vms)
{
	char *name = NULL;
	long nodes = 0;
	const char *last = "";

	while ((name = slurm_hostlist_shift(wanted))) {
		long rank = strncmp(name, "vm", 2) ? -1 : strtol(name + 2, NULL, 10);
		free(name);
		if (rank < 0 || rank >= vms || !names[rank] || dprintf(places, "%s\n", names[rank]) < 0)
			return 0;
		nodes += strcmp(last, names[rank]) != 0; /* ranks rise, and those of a node are together */
		last = names[rank];
	}
	return nodes;
}

/* Makes srun run the tasks on the nodes of their VMs; returns false when the user says where they run, or when the
 * nodes are not known. */
bool place_tasks(uint32_t job, const char *set, long tasks, const struct words *typed)
{
	const char *nodes = target.other ? NULL : getenv("SLURM_JOB_NUM_NODES");
	long vms = 0, used = 0;
	char **names = NULL, text[64];

	if ((nodes && strtol(nodes, NULL, 10) == 1) || is_placed(typed, tasks) || !(names = read_nodes(job, tasks, &vms)))
		return false;
	hosts_t wanted = slurm_hostlist_create(set);
	places = wanted ? memfd_create("pcocc-places", MFD_CLOEXEC) : -1;
	if (places >= 0) {
		slurm_hostlist_uniq(wanted);
		used = write_places(wanted, names, vms);
	}
	if (used) {
		snprintf(text, sizeof(text), "/proc/self/fd/%d", places);
		setenv("SLURM_HOSTFILE", text, 1);
		setenv("SLURM_DISTRIBUTION", "arbitrary", 1);
		snprintf(text, sizeof(text), "%ld", used);
		setenv("SLURM_NNODES", text, 1);
		unsetenv("SLURM_JOB_NUM_NODES");
	} else if (places >= 0) {
		close(places);
		places = -1;
	}
	if (wanted)
		slurm_hostlist_destroy(wanted);
	for (long rank = 0; rank < vms; rank++)
		free(names[rank]);
	free(names);
	return used > 0;
}

/* Removes these variables once srun has read them, so that the tasks do not see them. */
void forget_places(void)
{
	if (places < 0)
		return;
	close(places);
	places = -1;
	unsetenv("SLURM_HOSTFILE");
	unsetenv("SLURM_DISTRIBUTION");
}
