/* slurmstepd: root makes the job's networks once per node, opens the taps of each VM, and moves VM steps into its namespace. */
#include "pcocc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONFLICT_WAIT_MS 20000

/* How the set-up of this node went, for all its tasks. `output` names the taps of each VM, or is the error for the user. */
static struct {
	enum { SETUP_NONE, SETUP_DONE, SETUP_DUPLICATE, SETUP_FAILED } state;
	char *output;
} setup;
static const char *unreachable; /* why this VM step finds no network of its job on this node */

static bool is_sets(const char *text)
{
	size_t length = strlen(text);

	return length && length <= 1024 &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:,-") == length;
}

static void add_ranks(struct text *text, const uint32_t *ranks, uint32_t count)
{
	for (uint32_t i = 0; i < count;) {
		uint32_t last = i;
		while (last + 1 < count && ranks[last + 1] == ranks[last] + 1)
			last++;
		text_add(text, last > i ? "%s%u-%u" : "%s%u", i ? "," : "", ranks[i], ranks[last]);
		i = last + 1;
	}
}

/* Which task runs where: asked of slurmctld, as the environment can be changed by the user. */
static int add_layout(struct text *text, uint32_t job, uint32_t step)
{
	slurm_step_id_t id = id_of_step(job, step);
	slurm_step_layout_t *layout = slurm_job_step_layout_get(&id);
	if (!layout)
		return -1;
	hosts_t nodes = slurm_hostlist_create(layout->node_list);
	for (uint32_t i = 0; nodes && i < layout->node_cnt; i++) {
		char *name = slurm_hostlist_shift(nodes);
		text_add(text, "layout %s ", name ? name : "?");
		add_ranks(text, layout->tids[i], layout->tasks[i]);
		text_add(text, "\n");
		free(name);
	}
	slurm_hostlist_destroy(nodes);
	slurm_job_step_layout_free(layout);
	return nodes ? 0 : -1;
}

static void set_failure(const char *message)
{
	struct text text = { 0 };

	text_add(&text, "pcocc: error: %s\n", message);
	free(setup.output);
	setup.output = text.data;
	setup.state = SETUP_FAILED;
}

/* Returns a name that slurmctld gave, or "" when it has line ends: users may name any account if Slurm does not check them. */
static const char *one_line(const char *name)
{
	return name && !strpbrk(name, "\r\n") ? name : "";
}

/* Adds what slurmctld has of the job; needed only when a resource set depends on it. */
static int add_charge(struct text *text, uint32_t job)
{
	job_info_msg_t *jobs = NULL;

	if (load_job(job, &jobs))
		return -1;
	int found = 0;
	for (uint32_t i = 0; i < jobs->record_count && !found; i++) { /* all jobs of an array are in the answer */
		const job_info_t *one = &jobs->job_array[i];
		if (one->job_id != job)
			continue;
		found = 1;
		text_add(text, "account %s\npartition %s\nqos %s\nlicenses %s\n", one_line(one->account), one_line(one->partition),
			 one_line(one->qos), one_line(one->licenses)); /* no alternatives ('|') among them: the filter has chosen */
		hosts_t nodes = slurm_hostlist_create(one->nodes);
		char *name = NULL;
		for (uint32_t i = 0; nodes && i < one->gres_detail_cnt && (name = slurm_hostlist_shift(nodes)); i++, free(name))
			text_add(text, "gres %s %s\n", name, one_line(one->gres_detail_str[i]));
		slurm_hostlist_destroy(nodes);
	}
	slurm_free_job_info_msg(jobs);
	return found ? 0 : -1;
}

/* Runs the set-up. A younger boot step of this job that holds the node is killed: the oldest one gets all nodes. */
static void run_setup(uint32_t job, struct text *request)
{
	bool charged = false;

	for (int waited = 0; waited < CONFLICT_WAIT_MS; waited += 200) {
		struct helper_result answer = { 0 };
		struct text whole = { 0 };
		unsigned int other = 0;
		text_add(&whole, "%send\n", request->data);
		run_helper(HELPER_SETUP, whole.data, &answer);
		free(whole.data);
		int status = answer.ended ? answer.status : -1;
		if (status == HELPER_CHARGE && !charged) {
			charged = true;
			if (add_charge(request, job)) {
				set_failure("slurmctld did not say in which account and partition this job runs");
				return;
			}
		} else if (status == HELPER_CONFLICT && sscanf(answer.output, "conflict %u", &other) == 1) {
			kill_step(job, other, SIGKILL);
			usleep(200000);
		} else {
			setup.output = answer.output;
			setup.state = status == 0 ? SETUP_DONE : status == HELPER_DUPLICATE ? SETUP_DUPLICATE : SETUP_FAILED;
			return;
		}
		free(answer.output);
	}
	set_failure("another boot step of this job holds the node");
}

/* Root's part of the boot step on this node. From 23.02 on user_init must not ask slurmctld: slurmstepd holds a lock then that
 * each request needs. The step has no output yet here, so stepd_task shows errors to the user later. */
int stepd_post_opt(spank_t sp)
{
	uint32_t job = 0, step = 0, index = 0;
	uid_t uid = 0;
	gid_t gid = 0;
	struct text text = { 0 };

	if (!options.boot)
		return 0;
	if (spank_get_item(sp, S_JOB_ID, &job) || spank_get_item(sp, S_JOB_STEPID, &step) ||
	    spank_get_item(sp, S_JOB_NODEID, &index) || spank_get_item(sp, S_JOB_UID, &uid) || spank_get_item(sp, S_JOB_GID, &gid))
		set_failure("slurmstepd does not know its own job");
	else if (!is_sets(options.boot))
		set_failure("--pcocc-boot is internal, use --pcocc-template");
	else {
		text_add(&text, "job %u\nstep %u\nuid %u\ngid %u\nstepd %d\nindex %u\n", job, step, uid, gid, (int)getpid(), index);
		if (add_layout(&text, job, step))
			set_failure("slurmctld did not say where the VMs of this job run");
		else {
			text_add(&text, "sets %s\n", options.boot);
			has_lock(job, O_RDWR | O_CREAT); /* before the helper, which a busy node may take a minute to start */
			run_setup(job, &text);
		}
		free(text.data);
	}
	return 0; /* a failure here would drain the node: the tasks report it */
}

/* Opens each tap of a VM for as many queues as it has CPUs and the site allows, and /dev/vhost-net for each queue where the
 * helper says so; adds their descriptors as `5/7:6/8,9/11:10/12`, with a negative errno where /dev/vhost-net cannot be opened. */
static int open_taps(spank_t sp, uint32_t rank, struct text *fds)
{
	char key[32];
	size_t length = 0;
	const char *limit = find_line(setup.output, "queues", &length), *vhost = find_line(setup.output, "vhost", &length);
	long queues = limit ? strtol(limit, NULL, 10) : 1, cpus = 0;

	if (spank_getenv(sp, "SLURM_CPUS_PER_TASK", key, sizeof(key)) == ESPANK_SUCCESS && (cpus = strtol(key, NULL, 10)) > 0)
		queues = cpus < queues ? cpus : queues;
	snprintf(key, sizeof(key), "tap %u", rank);
	const char *names = find_line(setup.output, key, &length);
	if (!names)
		return -1;
	text_add(fds, "%s", "");
	for (const char *end = names + length; names < end; names += length + 1) {
		char name[16] = "";
		length = strcspn(names, ",\n");
		memcpy(name, names, length < 15 ? length : 15);
		for (long i = 0; i < queues; i++) {
			int fd = open_tap(name, limit), host = vhost ? open("/dev/vhost-net", O_RDWR) : -1;
			if (fd < 0)
				return -1;
			text_add(fds, "%s%d", i ? ":" : fds->length ? "," : "", fd);
			text_add(fds, vhost ? "/%d" : "", host < 0 ? -errno : host);
		}
	}
	return 0;
}

static int boot_task_privileged(spank_t sp)
{
	uint32_t job = 0, rank = 0;
	struct text fds = { 0 };
	char probe[16], kvm[16];
	size_t length = 0;
	int host = -1;

	if (setup.state != SETUP_DONE)
		return 0; /* stepd_task tells the user */
	if (spank_get_item(sp, S_JOB_ID, &job) || spank_get_item(sp, S_TASK_GLOBAL_ID, &rank) || enter_netns(job, &host)) {
		set_failure("the job's network namespace is gone");
		return 0;
	}
	int failed = open_taps(sp, rank, &fds);
	int reason = errno;
	int sock = socket(AF_INET, SOCK_STREAM, 0); /* it stays in this namespace: the keeper reaches the guest by it */
	leave_netns(host);
	if (failed || sock < 0) {
		char message[128];
		snprintf(message, sizeof(message), "a tap device cannot be opened on this node: %s", strerror(reason));
		set_failure(message);
	} else {
		snprintf(probe, sizeof(probe), "%d", sock);
		spank_setenv(sp, ENV_TAP_FDS, fds.data, 1);
		spank_setenv(sp, ENV_PROBE_FD, probe, 1);
		snprintf(kvm, sizeof(kvm), "%d", find_line(setup.output, "kvm", &length) ? open("/dev/kvm", O_RDWR) : -1);
		spank_setenv(sp, ENV_KVM_FD, kvm, 1); /* users may open /dev/kvm or not: whoever may run VMs here gets it, for these */
	}
	free(fds.data);
	return 0;
}

/* Waits for the job's namespace: a boot step that has just started makes it soon, and one that has begun here will. */
static int vm_task_privileged(spank_t sp)
{
	uint32_t job = 0;
	char seconds[16] = "", inside[8] = "";
	long patience = MAX_PATIENCE, waited = 0; /* the latter in ms */

	if (spank_get_item(sp, S_JOB_ID, &job))
		return -1;
	if (spank_getenv(sp, ENV_PATIENCE, seconds, sizeof(seconds)) == ESPANK_SUCCESS && *seconds)
		patience = strtol(seconds, NULL, 10);
	bool looks = spank_getenv(sp, ENV_STEP_INSIDE, inside, sizeof(inside)) == ESPANK_SUCCESS; /* for what is there now */
	for (; !unreachable && enter_netns(job, NULL); waited += 50) {
		bool missing = errno == ENOENT, begun = missing && has_lock(job, O_RDONLY);
		if (!missing || waited >= (begun && !looks ? SETUP_PATIENCE : patience < MAX_PATIENCE ? patience : MAX_PATIENCE) * 1000L)
			unreachable = begun ? "it is still being set up for the job" : "the job's VMs there have ended";
		usleep(50000); /* stepd_task tells the user, as it knows the VM and Slurm adds no message there */
	}
	return 0;
}

/* An operation (steps/operations.py) begins in the node's own network, unless the srun that starts it asks for the job's. */
static bool stays_outside(spank_t sp)
{
	char inside[8] = "";
	int argc = 0;
	char **argv = NULL;

	return spank_get_item(sp, S_JOB_ARGV, &argc, &argv) == ESPANK_SUCCESS && argc > 0 && argv[0][0] == '@' &&
	       !(spank_getenv(sp, ENV_STEP_INSIDE, inside, sizeof(inside)) == ESPANK_SUCCESS && *inside);
}

int stepd_task_privileged(spank_t sp)
{
	char set[8192];

	if (options.boot)
		return boot_task_privileged(sp);
	bool in_vms = spank_getenv(sp, ENV_STEP_VMS, set, sizeof(set)) == ESPANK_SUCCESS && *set;
	return in_vms && !stays_outside(sp) ? vm_task_privileged(sp) : 0;
}

/* Keeps the task's environment in memory before prolog scripts change it: their changes are made in the guest, too. */
static int keep_environment(spank_t sp)
{
	char **at = NULL, number[16];
	int fd = memfd_create("pcocc-environment", 0);

	snprintf(number, sizeof(number), "%d", fd);
	if (fd < 0 || spank_setenv(sp, ENV_BEFORE_FD, number, 1) || spank_get_item(sp, S_JOB_ENV, &at))
		return -1;
	while (at && *at && dprintf(fd, "%s%c", *at, 0) > 0)
		at++;
	return at && !*at ? 0 : -1;
}

/* Makes the task run the attach client, for a VM, with the task's own command as arguments. */
static int run_attach(spank_t sp, const char *vm)
{
	static const char attach[] = PCOCC_LIBEXEC "/attach";

	if (access(attach, X_OK) == 0 && spank_setenv(sp, ENV_VM_NAME, vm, 1) == 0 && keep_environment(sp) == 0 &&
	    prepend_program(sp, attach) == 0)
		return 0;
	complain("ask the admins to install the pcocc runtime there", "%s cannot be started on this node: %s", attach, strerror(errno));
	return -1;
}

/* Returns the VM of this task: task i has VM i; when there are more tasks than VMs, each VM has a block of tasks. */
static char *choose_vm(spank_t sp, const char *set)
{
	uint32_t task = 0, tasks = 1;
	hosts_t vms = slurm_hostlist_create(set);
	char *name = NULL;

	if (!vms || spank_get_item(sp, S_TASK_GLOBAL_ID, &task) || spank_get_item(sp, S_JOB_TOTAL_TASK_COUNT, &tasks))
		return NULL;
	uint64_t count = (uint64_t)slurm_hostlist_count(vms);
	uint64_t place = tasks >= count ? task * count / tasks : task;
	for (uint64_t i = 0; i <= place; i++) {
		free(name);
		name = slurm_hostlist_shift(vms);
	}
	slurm_hostlist_destroy(vms);
	return name;
}

static int boot_task(void)
{
	if (setup.state == SETUP_DONE)
		return 0; /* the step's own command is the launcher */
	if (setup.state == SETUP_FAILED && write(STDERR_FILENO, setup.output, strlen(setup.output)) < 0)
		_exit(1);
	_exit(setup.state == SETUP_DUPLICATE ? EXIT_DUPLICATE : 1);
}

int stepd_task(spank_t sp)
{
	char set[8192];
	uint32_t step = 0;

	if (options.boot)
		return boot_task();
	bool batch = spank_get_item(sp, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step == SLURM_BATCH_SCRIPT;
	if (spank_getenv(sp, batch ? ENV_BATCH_VM : ENV_STEP_VMS, set, sizeof(set)) != ESPANK_SUCCESS || !*set)
		return 0;
	char *vm = choose_vm(sp, set);
	if (!vm)
		return -1;
	if (unreachable) {
		char node[256] = "this node";
		gethostname(node, sizeof(node) - 1);
		complain("the srun that booted the VMs has said why; start the step on the VMs that are left, or a new job",
			 "%s cannot be reached from %s: %s", vm, node, unreachable);
		_exit(1);
	}
	return run_attach(sp, vm);
}

int stepd_exit(spank_t sp)
{
	uint32_t job = 0, step = 0;
	struct text text = { 0 };
	struct helper_result result = { 0 };

	if (!options.boot || setup.state == SETUP_NONE || setup.state == SETUP_DUPLICATE ||
	    spank_get_item(sp, S_JOB_ID, &job) || spank_get_item(sp, S_JOB_STEPID, &step))
		return 0;
	text_add(&text, "job %u\nstep %u\nend\n", job, step);
	run_helper(HELPER_RELEASE, text.data, &result);
	if (!result.ended || result.status)
		slurm_error("pcocc: job %u was not released: %s", job, result.output);
	free(text.data);
	free(result.output);
	return 0;
}
