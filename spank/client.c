/* srun, sbatch and salloc: decides whether a step runs in VMs, and has them booted for it. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_PATIENCE (MAX_PATIENCE / 2) /* seconds; a boot step makes the namespaces in its first one or two */

static bool vm_mode; /* this srun's tasks run in VMs */
static struct words typed; /* what the user typed before the command */

static void refuse_space(const char *set)
{
	complain("without a value it means all VMs (for sbatch vm0), and the next word is the command; to run a program of that "
		 "name, write its path",
		 "--pcocc-vm takes its VMs after an equals sign: write --pcocc-vm=%s", set);
	exit(1);
}

/* Looks for that mistake in the #SBATCH lines before a script's first command; sbatch itself would only call them
 * invalid. */
static void check_script(const char *path)
{
	struct stat status;
	FILE *file = stat(path, &status) || !S_ISREG(status.st_mode) ? NULL : fopen(path, "re");
	char line[4096];

	while (file && fgets(line, sizeof(line), file) && (line[0] == '#' || line[strspn(line, " \t\n")] == '\0')) {
		const char *former = "";
		if (strncmp(line, "#SBATCH", 7))
			continue;
		for (const char *word = strtok(line + 7, " \t\n"); word && *word != '#'; word = strtok(NULL, " \t\n")) {
			bool is_option = strlen(former) >= strlen("--pcocc-v") && !strncmp("--" OPTION_VM, former, strlen(former));
			if (is_option && find_set(word))
				refuse_space(find_set(word));
			former = word;
		}
	}
	if (file)
		fclose(file);
}

/* A value of --pcocc-vm follows '=': in `--pcocc-vm vm0 cmd` Slurm takes `vm0 cmd` for the command, or vm0 for the script. */
static void check_command(bool local)
{
	if (!typed.command)
		return;
	const char *set = typed.vm && !*typed.vm ? find_set(typed.command) : NULL;
	if (set && (local || access(typed.command, F_OK)))
		refuse_space(set);
	if (!strcmp(program_invocation_short_name, "sbatch"))
		check_script(typed.command);
}

void client_init(spank_t sp)
{
	(void)sp;
	bool local = spank_context() == S_CTX_LOCAL;

	forget_inherited_options();
	drop_step_variables();
	read_own_words(&typed);
	if (local)
		find_target(&typed);
	if (!target.in_job || target.other)
		drop_job_variables();
	if (local)
		size_srun(&typed);
	check_command(local);
}

static bool wants_check(void)
{
	return options.template || options.image_count || options.mount_count || options.user_data || options.user_data_force ||
	       options.restart || options.checkpoint;
}

/* Checks that the job has the VMs of a set, and names them in the step's environment. */
static bool name_vms(const char *set, long vms)
{
	char all[32], ranged[8192], *name = NULL;

	snprintf(all, sizeof(all), vms > 1 ? "vm[0-%ld]" : "vm0", vms - 1);
	hosts_t known = slurm_hostlist_create(all), wanted = slurm_hostlist_create(*set ? set : all);
	if (wanted)
		slurm_hostlist_uniq(wanted);
	bool right = wanted && slurm_hostlist_count(wanted) > 0 &&
		     slurm_hostlist_ranged_string(wanted, sizeof(ranged), ranged) > 0;
	if (right)
		setenv(ENV_STEP_VMS, ranged, 1);
	else
		complain("write a node set such as vm[0-3,7]", "--pcocc-vm=%s is not a set of VMs", set);
	while (right && (name = slurm_hostlist_shift(wanted))) {
		right = slurm_hostlist_find(known, name) >= 0;
		if (!right)
			complain("count from vm0", "--pcocc-vm=%s: there is no %s in a job of %ld VMs", set, name, vms);
		free(name);
	}
	slurm_hostlist_destroy(wanted);
	slurm_hostlist_destroy(known);
	return right;
}

/* Makes this srun's step a VM step, or says why it cannot be. */
static bool mark_vm_step(void)
{
	long vms = count_job_vms();

	name_wishes(&typed);
	if (vms > 0)
		return name_vms(options.vm, vms);
	if (target.other)
		complain("the first srun --pcocc-vm inside the job boots them; for a job of salloc --no-shell, the first one with "
			 "--jobid does",
			 "no VMs of job %u run", target.other);
	else
		complain("submit the job with --pcocc-template, for example sbatch --pcocc-template=NAME:2",
			 "--pcocc-vm needs a job with VMs, but this one has none");
	return false;
}

/* Ends a command that cannot have what its options ask for, whatever their values are. */
static void refuse_misplaced(bool local)
{
	if (target.in_job && options.template) {
		complain("leave --pcocc-template out here, and use --pcocc-vm to run in the VMs of this job",
			 "--pcocc-template makes a new job, but this command runs inside job %s",
			 getenv("SLURM_JOB_ID") ? getenv("SLURM_JOB_ID") : "(--jobid)");
		exit(1);
	}
	if (options.restart && (local || target.in_job)) {
		complain("submit the job with sbatch --pcocc-restart=DIR, or get one with salloc", "--pcocc-restart makes a new job%s",
			 local ? ", which srun cannot size" : ", and this command runs inside one");
		exit(1);
	}
	if (options.image_count > MAX_REPEAT || options.mount_count > MAX_REPEAT) {
		complain("write the others into a template of your own",
			 "--pcocc-image and --pcocc-mount may be given %d times each at most", MAX_REPEAT);
		exit(1);
	}
}

/* A refused request ends srun, sbatch or salloc here, so that Slurm adds no message to ours. */
int client_post_opt(spank_t sp)
{
	bool local = spank_context() == S_CTX_LOCAL;

	forget_places();
	if (options.boot)
		return 0;
	if (!local && !target.in_job && !options.template && !options.restart)
		options.restart = read_variable(VAR_RESTART);
	take_variables(!target.in_job);
	if (options.vm && !strcmp(options.vm, "all"))
		options.vm = ""; /* which refuse_space names */
	refuse_misplaced(local);
	if (wants_check() && !check_request(sp))
		exit(1);
	if (!local) {
		if (options.vm && !options.template) {
			complain("give --pcocc-template too", "--pcocc-vm needs VMs to run the batch script in");
			exit(1);
		}
		if (options.vm)
			spank_job_control_setenv(sp, JOB_BATCH_VM, *options.vm ? options.vm : "vm0", 1);
		if (options.template && typed.no_shell && !strcmp(program_invocation_short_name, "salloc"))
			keep_cluster(sp);
		drop_variables();
		return 0;
	}
	if (!options.vm && options.template)
		options.vm = "";
	vm_mode = options.vm && !options.no_vm;
	if (vm_mode && !mark_vm_step())
		exit(1);
	return 0;
}

/* Ends the step or the allocation that srun has made: nothing else does when srun just exits. */
static void undo(uint32_t job, uint32_t step)
{
	if (target.in_job)
		terminate_step(job, step);
	else
		complete_job(job, 1);
}

/* Tells the step's tasks how many seconds to wait for the job's namespace; `pcocc network` itself asks for fewer. */
static void set_patience(long left)
{
	char seconds[24];
	const char *most = getenv(ENV_PATIENCE);

	if (most && strtol(most, NULL, 10) < left)
		left = strtol(most, NULL, 10);
	snprintf(seconds, sizeof(seconds), "%ld", left > 0 ? left : 0);
	setenv(ENV_PATIENCE, seconds, 1);
}

/* Returns true once the VMs run or are being booted; false when they cannot be, and the user has been told why. */
static bool ensure_vms(uint32_t job)
{
	struct boot_step boot;

	if (!find_boot_step(job, &boot)) {
		complain("is slurmctld up? try 'scontrol ping'", "slurmctld does not say whether the VMs of job %u run", job);
		return false;
	}
	enum boot_outcome outcome = boot.running ? VMS_BOOT : start_boot_step(job);
	/* a namespace that is missing long after the boot will not appear */
	set_patience(outcome == VMS_RUN ? 0 : BOOT_PATIENCE - (boot.running ? boot.age : 0));
	return outcome != VMS_FAILED;
}

int client_local_user(spank_t sp)
{
	uint32_t job = 0, step = 0;

	if (!vm_mode || options.boot)
		return 0;
	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS) {
		complain("please report it", "srun does not know its own job: this is a bug in pcocc");
		return -1;
	}
	rename_programs(sp);
	if (ensure_vms(job))
		return 0;
	undo(job, step);
	exit(1);
}
