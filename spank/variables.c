/* Variables that users export in place of options, and variables that must not reach the jobs and steps that users
 * start. */
#include "client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* sbatch passes its options on to the commands of its job by the environment. They are removed, so that only options
 * typed here count. */
void forget_inherited_options(void)
{
	static const char prefix[] = "SLURM_SPANK__" SENT_OPTION;

	for (char **at = environ; *at;) {
		if (strncmp(*at, prefix, sizeof(prefix) - 1)) {
			at++;
			continue;
		}
		char *name = strndup(*at, strcspn(*at, "="));
		unsetenv(name); /* the variables after it move up */
		free(name);
	}
}

/* Returns a copy of a variable's value, as it may be unset later; NULL when it is empty or not set. */
const char *read_variable(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? strdup(value) : NULL;
}

/* Options on the command line win over variables; those for a new cluster count only where a job is made. */
void take_variables(bool with_template)
{
	if (!options.vm && !options.no_vm)
		options.vm = read_variable(VAR_VM);
	if (options.vm && (!strcmp(options.vm, "1") || !strcmp(options.vm, "all")))
		options.vm = "";
	if (!with_template)
		return;
	if (!options.template && !options.restart)
		options.template = read_variable(VAR_TEMPLATE);
	if (!options.checkpoint && (options.template || options.restart))
		options.checkpoint = read_variable(VAR_CHECKPOINT);
	if (options.restart) /* the others are for jobs that boot */
		return;
	if (!options.image_count && (options.images[0] = read_variable(VAR_IMAGE)))
		options.image_count = 1;
	if (!options.mount_count && (options.mounts[0] = read_variable(VAR_MOUNT)))
		options.mount_count = 1;
	if (!options.user_data)
		options.user_data = read_variable(VAR_USER_DATA);
	if (options.template && read_variable(VAR_USER_DATA_FORCE))
		options.user_data_force = true;
}

static void drop(const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		unsetenv(names[i]);
}

/* Without this, commands in the job would take the variables that sbatch or salloc has used for requests of their own. */
void drop_variables(void)
{
	static const char *const names[] = {
		VAR_TEMPLATE, VAR_VM, VAR_IMAGE, VAR_MOUNT, VAR_USER_DATA, VAR_USER_DATA_FORCE, VAR_RESTART, VAR_CHECKPOINT,
	};

	drop(names, sizeof(names) / sizeof(*names));
}

/* A job submitted from inside another one does not inherit its VMs. */
void drop_job_variables(void)
{
	static const char *const names[] = { ENV_CLUSTER, ENV_TEMPLATE, ENV_SIZE, ENV_BATCH_VM };

	drop(names, sizeof(names) / sizeof(*names));
}

/* Drops what an srun around this one has set for its own tasks. */
void drop_step_variables(void)
{
	static const char *const names[] = {
		ENV_STEP_VMS, ENV_STEP_EXPORT, ENV_STEP_PROGRAMS, ENV_STEP_BCAST, ENV_FIRST_WORD, ENV_BEFORE_FD,
	};

	drop(names, sizeof(names) / sizeof(*names));
}
