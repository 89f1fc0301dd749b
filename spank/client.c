/* srun, sbatch and salloc: checks a request before anything is submitted, and tells VM steps from others. */
#include "pcocc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_SIZE (512 * 1024)

static bool in_job; /* this srun runs inside an allocation */
static uint32_t other_job; /* srun --jobid, typed outside of that job */
static bool vm_mode; /* this srun's tasks run in VMs */

/* Returns the value of a long option on our own command line, before Slurm has parsed it; NULL when absent. An optional
 * value only follows `=`. */
static const char *peek_option(const char *line, size_t size, const char *name, bool optional)
{
	size_t width = strlen(name);
	const char *end = line + size, *found = NULL;

	for (const char *at = line + strlen(line) + 1; at < end; at += strlen(at) + 1) {
		if (!strcmp(at, "--"))
			break;
		if (strncmp(at, name, width))
			continue;
		if (at[width] == '=')
			found = at + width + 1;
		else if (!at[width] && !optional && at + width + 1 < end)
			found = at + width + 1;
	}
	return found;
}

/* Returns the number of VMs of the job a VM step goes to: the job's environment knows, or its boot step. */
static long count_job_vms(void)
{
	struct boot_step boot;

	if (!other_job)
		return count_vms(getenv(ENV_TEMPLATE));
	return find_boot_step(other_job, &boot) ? 0 : boot.vms;
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

/* Tells whether srun was told where the VMs of the set are. */
static bool place_step(const char *set, long tasks, const char *line, size_t size)
{
	uint32_t job = other_job;

	if (!job && !peek_option(line, size, "--jobid", false))
		job = (uint32_t)strtoul(getenv("SLURM_JOB_ID"), NULL, 10);
	return job && !strncmp(set, "vm", 2) && place_tasks(job, set, tasks, line, size);
}

/* srun sizes itself before option callbacks: one task a VM, unless the user typed -n, which wins over the variable. */
static void size_srun(void)
{
	static char line[128 * 1024];
	char number[24];
	long count = 0;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	const char *job = size > 0 && !in_job ? peek_option(line, (size_t)size, "--jobid", false) : NULL;
	if (job && strtoul(job, NULL, 10)) {
		other_job = (uint32_t)strtoul(job, NULL, 10);
		in_job = true;
	}
	const char *template = in_job ? NULL : getenv(VAR_TEMPLATE), *set = getenv(VAR_VM);
	if (size > 0 && memmem(line, (size_t)size, "--pcocc-", 8)) {
		const char *typed = peek_option(line, (size_t)size, "--" OPTION_TEMPLATE, false);
		template = typed ? typed : template;
		typed = peek_option(line, (size_t)size, "--" OPTION_VM, true);
		set = typed ? typed : set;
	}
	if (size > 0 && memmem(line, (size_t)size, "--" OPTION_NO_VM, 13))
		set = NULL;
	bool steps_into_vms = set || (size > 0 && memmem(line, (size_t)size, "--" OPTION_VM, 10));
	if (set && !strncmp(set, "vm", 2))
		count = count_set(set);
	else if (in_job && steps_into_vms && !getenv("SLURM_NTASKS"))
		count = count_job_vms(); /* salloc names only a number of tasks that was typed */
	else if (template && !in_job)
		count = count_vms(template);
	if (count <= 0)
		return;
	snprintf(number, sizeof(number), "%ld", count);
	setenv("SLURM_NTASKS", number, 1);
	setenv("SLURM_NPROCS", number, 1);
	const char *nodes = getenv("SLURM_NNODES");
	if (in_job && set && size > 0 && place_step(set, count, line, (size_t)size))
		return;
	if (nodes && strtol(nodes, NULL, 10) > count) {
		unsetenv("SLURM_NNODES");
		unsetenv("SLURM_JOB_NUM_NODES");
	}
}

void client_init(spank_t sp)
{
	(void)sp;
	bool local = spank_context() == S_CTX_LOCAL;

	in_job = local && getenv("SLURM_JOB_ID");
	forget_inherited_options();
	unsetenv(ENV_STEP_VMS);
	if (!in_job) { /* a job submitted from inside another one does not inherit its VMs */
		unsetenv(ENV_CLUSTER);
		unsetenv(ENV_TEMPLATE);
		unsetenv(ENV_SIZE);
		unsetenv(ENV_BATCH_VM);
	}
	if (local)
		size_srun();
}

static char *render_request(void)
{
	struct text text = { 0 };

	text_add(&text, "{\"template\":");
	text_add_json(&text, options.template);
	text_add(&text, ",\"images\":[");
	for (size_t i = 0; i < options.image_count; i++) {
		text_add(&text, i ? "," : "");
		text_add_json(&text, options.images[i]);
	}
	text_add(&text, "],\"mounts\":[");
	for (size_t i = 0; i < options.mount_count; i++) {
		text_add(&text, i ? "," : "");
		text_add_json(&text, options.mounts[i]);
	}
	text_add(&text, "],\"user_data\":");
	text_add_json(&text, options.user_data);
	text_add(&text, ",\"vm\":");
	text_add_json(&text, options.vm);
	text_add(&text, ",\"tool\":\"%s\"}", spank_context() == S_CTX_LOCAL ? "srun" : "sbatch");
	return text.data;
}

static char *copy_line(const char *answer, const char *key)
{
	size_t length = 0;
	const char *value = find_line(answer, key, &length);

	return strndup(value ? value : "", value ? length : 0);
}

/* Hands the checked request on: to job_submit and to the job's environment. */
static void publish(spank_t sp, const char *answer)
{
	char *size = NULL;
	char *cluster = copy_line(answer, "cluster"), *template = copy_line(answer, "template");
	char *vms = copy_line(answer, "vms"), *cpus = copy_line(answer, "cpus"), *memory = copy_line(answer, "memory");
	char *exclusive = copy_line(answer, "exclusive"), *sets = copy_line(answer, "sets");

	if (asprintf(&size, "vms=%s;cpus=%s;memory=%s;exclusive=%s;sets=%s", vms, cpus, memory, exclusive, sets) < 0)
		size = strdup("");
	spank_job_control_setenv(sp, JOB_CLUSTER, cluster, 1);
	spank_job_control_setenv(sp, JOB_TEMPLATE, template, 1);
	spank_job_control_setenv(sp, JOB_SIZE, size, 1);
	setenv(ENV_CLUSTER, cluster, 1);
	setenv(ENV_TEMPLATE, template, 1);
	free(cluster);
	free(template);
	free(vms);
	free(cpus);
	free(memory);
	free(exclusive);
	free(sets);
	free(size);
}

static int check_request(spank_t sp)
{
	char *request = render_request();
	char *answer = calloc(1, ANSWER_SIZE);
	int result = answer ? embed_check(request, answer, ANSWER_SIZE) : 0;

	if (result == 1)
		publish(sp, answer);
	else if (result == 2)
		fprintf(stderr, "%s%s", answer, answer[0] && answer[strlen(answer) - 1] == '\n' ? "" : "\n");
	else
		complain("ask the admins to reinstall the pcocc runtime on this host", "the request cannot be checked here: %s",
			 answer && answer[0] ? answer : "the embedded Python did not start");
	free(request);
	free(answer);
	return result == 1 ? 0 : -1;
}

static bool wants_check(void)
{
	return options.template || options.image_count || options.mount_count || options.user_data;
}

/* Names every VM of the step in its environment, after a look that the job has them. */
static int mark_vm_step(void)
{
	long vms = count_job_vms();
	char all[32], ranged[8192];

	if (vms < 1 && other_job) {
		complain("the first srun --pcocc-vm inside the job boots them", "no VMs of job %u run", other_job);
		return -1;
	}
	if (vms < 1) {
		complain("submit the job with --pcocc-template, for example sbatch --pcocc-template=NAME:2",
			 "--pcocc-vm needs a job with VMs, and this one has none");
		return -1;
	}
	snprintf(all, sizeof(all), vms > 1 ? "vm[0-%ld]" : "vm0", vms - 1);
	hosts_t known = slurm_hostlist_create(all), wanted = slurm_hostlist_create(*options.vm ? options.vm : all);
	char *name = NULL;
	int result = wanted && slurm_hostlist_count(wanted) > 0 ? 0 : -1;
	if (result)
		complain("write a node set such as vm[0-3,7]", "--pcocc-vm=%s is no set of VMs", options.vm);
	else {
		slurm_hostlist_uniq(wanted);
		if (slurm_hostlist_ranged_string(wanted, sizeof(ranged), ranged) < 0)
			result = -1;
		setenv(ENV_STEP_VMS, ranged, 1);
	}
	while (!result && (name = slurm_hostlist_shift(wanted))) {
		if (slurm_hostlist_find(known, name) < 0) {
			complain("count from vm0", "--pcocc-vm=%s: there is no %s in a job of %ld VMs", options.vm, name, vms);
			result = -1;
		}
		free(name);
	}
	slurm_hostlist_destroy(wanted);
	slurm_hostlist_destroy(known);
	return result;
}

/* A refused request ends the tool here, with its own sentence as the only one. */
int client_post_opt(spank_t sp)
{
	bool local = spank_context() == S_CTX_LOCAL;

	forget_places();
	if (options.boot)
		return 0;
	take_environment_options(!in_job);
	if (in_job && options.template) {
		complain("leave --pcocc-template away here, and use --pcocc-vm to run in the VMs of this job",
			 "--pcocc-template makes a new job, and this command runs inside job %s", getenv("SLURM_JOB_ID") ? getenv("SLURM_JOB_ID") : "(--jobid)");
		exit(1);
	}
	if (wants_check() && check_request(sp))
		exit(1);
	if (!local) {
		if (options.vm && !options.template) {
			complain("give --pcocc-template too", "--pcocc-vm needs VMs to run the batch script in");
			exit(1);
		}
		if (options.vm)
			spank_job_control_setenv(sp, JOB_BATCH_VM, *options.vm ? options.vm : "vm0", 1);
		drop_environment_options();
		return 0;
	}
	if (!options.vm && options.template)
		options.vm = "";
	vm_mode = options.vm && !options.no_vm;
	if (vm_mode && mark_vm_step())
		exit(1);
	return 0;
}

/* What srun has made by now must go again: nothing else ends an allocation whose srun just exits. */
static void undo(uint32_t job, uint32_t step)
{
	if (in_job)
		terminate_step(job, step);
	else
		complete_job(job, 1);
}

/* A boot step makes the namespaces in its first second or two; what is missing long after has ended. `age` in s, -1: it is up. */
static void set_patience(long age)
{
	char seconds[16];
	long left = age < 0 || age > MAX_PATIENCE / 2 ? 0 : MAX_PATIENCE / 2 - age;
	const char *most = getenv(ENV_PATIENCE); /* a step that only looks waits less (pcocc_runtime/slurm/steps.py) */

	if (most && strtol(most, NULL, 10) < left)
		left = strtol(most, NULL, 10);
	snprintf(seconds, sizeof(seconds), "%ld", left);
	setenv(ENV_PATIENCE, seconds, 1);
}

int client_local_user(spank_t sp)
{
	uint32_t job = 0, step = 0;
	struct boot_step boot;
	int joined = 0;

	if (!vm_mode || options.boot)
		return 0;
	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS || spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS) {
		complain("report this fault", "srun does not know its job in this hook");
		return -1;
	}
	if (find_boot_step(job, &boot) == 0 && (boot.age >= 0 || (joined = start_boot_step(job)) >= 0)) {
		set_patience(joined ? 0 : boot.age);
		return 0;
	}
	undo(job, step);
	exit(1);
}
