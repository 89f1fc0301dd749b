/* A step in some of a job's VMs runs on their nodes: there their shared connections and their own sockets are at hand. */
#include "pcocc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int places = -1; /* a file in memory: the node of each task, one a line, as srun reads a SLURM_HOSTFILE */

/* Long options by which a user places tasks himself. */
static const char *const placing[] = { "--nodelist", "--exclude", "--distribution", "--nodes", "--nodefile", "--relative",
				       "--ntasks-per", "--spread-job", "--use-min-nodes", "--het-group" };

/* Tells whether srun's command surely begins at a word: it is no option, nor the value of the word before. */
static bool begins_command(const char *word, const char *before)
{
	return word[0] != '-' && (before[0] != '-' || strchr(before, '=') || !strcmp(before, "--" OPTION_VM) || !strcmp(before, "--overlap"));
}

static bool is_placing(const char *word, const char *next, long tasks)
{
	if (word[0] != '-')
		return false;
	if (word[1] == 'n')
		return strtol(word[2] ? word + 2 : next, NULL, 10) != tasks;
	if (word[1] != '-')
		return strpbrk(word + 1, "wxmNrFn") != NULL; /* also among the values of others: then nothing is lost but speed */
	const char *number = !strncmp(word, "--ntasks=", 9) ? word + 9 : !strcmp(word, "--ntasks") ? next : NULL;
	if (number)
		return strtol(number, NULL, 10) != tasks;
	for (size_t i = 0; i < sizeof(placing) / sizeof(*placing); i++)
		if (!strncmp(word, placing[i], strlen(placing[i])))
			return true;
	return false;
}

/* Tells whether srun's own words (`line`, as /proc/PID/cmdline has them) or its environment say where its tasks run. */
static bool is_placed(const char *line, size_t size, long tasks)
{
	static const char *const variables[] = { "SLURM_HOSTFILE", "SLURM_DISTRIBUTION", "SLURM_NTASKS_PER_NODE", "SLURM_HET_SIZE" };
	const char *end = line + size, *before = "", *word = line + strlen(line) + 1;

	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		if (getenv(variables[i]))
			return true;
	for (; word < end && strcmp(word, "--"); before = word, word += strlen(word) + 1) {
		const char *next = word + strlen(word) + 1;
		if (*before && begins_command(word, before))
			return false;
		if (is_placing(word, next < end ? next : "", tasks))
			return true;
	}
	return false;
}

/* Returns the node of each of the job's VMs, to be freed with what they point to; NULL when the step is in all of them, which
 * Slurm places as it has placed these, when they are all on one node, or when nobody knows. */
static char **read_nodes(uint32_t job, long tasks, long *vms)
{
	struct boot_step boot;
	char **names = NULL;

	if (find_boot_step(job, &boot) || boot.age < 0 || boot.vms <= tasks)
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

/* Writes the node of each VM of a set, in the order of its tasks; returns the number of different ones, 0 when one is unknown. */
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
		nodes += strcmp(last, names[rank]) != 0; /* ranks rise, and a node's are together */
		last = names[rank];
	}
	return nodes;
}

/* Has srun run the tasks of a step in the VMs of `set` on the nodes of these VMs; false: its user says where, or nobody knows. */
bool place_tasks(uint32_t job, const char *set, long tasks, const char *line, size_t size)
{
	const char *nodes = getenv("SLURM_JOB_NUM_NODES");
	long vms = 0, used = 0;
	char **names = NULL, text[64];

	if ((nodes && strtol(nodes, NULL, 10) == 1) || is_placed(line, size, tasks) || !(names = read_nodes(job, tasks, &vms)))
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

/* Once srun has read where its tasks run: not a word of it to them. */
void forget_places(void)
{
	if (places < 0)
		return;
	close(places);
	places = -1;
	unsetenv("SLURM_HOSTFILE");
	unsetenv("SLURM_DISTRIBUTION");
}
