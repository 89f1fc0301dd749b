/* The option table, and the environment's share in it. */
#include "pcocc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options;

enum { OPT_TEMPLATE, OPT_VM, OPT_NO_VM, OPT_IMAGE, OPT_MOUNT, OPT_USER_DATA, OPT_BOOT };

static int take_option(int which, const char *value, int remote);

static struct spank_option table[] = {
	{ OPTION_TEMPLATE, "TPL[:N][,TPL[:N]...]",
	  "[pcocc] boot a virtual cluster of N VMs (default 1) of each template TPL for this job", 1, OPT_TEMPLATE, take_option },
	{ OPTION_VM, "VMS",
	  "[pcocc] run this step's tasks (sbatch: the batch script) in the job's VMs; VMS is a set such as vm[0-3,7], default all",
	  2, OPT_VM, take_option },
	{ OPTION_NO_VM, NULL, "[pcocc] run on the hosts although --pcocc-template is on the command line", 0, OPT_NO_VM,
	  take_option },
	{ OPTION_IMAGE, "[TPL=]IMAGE", "[pcocc] another boot image for this job, for all templates or for TPL", 1, OPT_IMAGE,
	  take_option },
	{ OPTION_MOUNT, "TAG=PATH[,type=9p|virtiofs][,readonly]", "[pcocc] export one more host directory to the VMs", 1,
	  OPT_MOUNT, take_option },
	{ OPTION_USER_DATA, "FILE", "[pcocc] other cloud-init user-data for this job's VMs", 1, OPT_USER_DATA, take_option },
	{ OPTION_BOOT, "SETS", "[pcocc] internal: marks the step that boots the VMs", 1, OPT_BOOT, take_option },
};

#define TABLE_LENGTH (sizeof(table) / sizeof(table[0]))

static const char *const environment_names[] = { VAR_TEMPLATE, VAR_VM, VAR_IMAGE, VAR_MOUNT,
						 VAR_USER_DATA };

/* Slurm may call back twice with the same value: what repeats is kept once. */
static void add_value(const char **values, size_t *count, const char *value)
{
	for (size_t i = 0; i < *count; i++)
		if (!strcmp(values[i], value))
			return;
	if (*count < MAX_REPEAT)
		values[(*count)++] = value;
}

static int take_option(int which, const char *value, int remote)
{
	(void)remote;
	const char *kept = strdup(value ? value : "");
	if (!kept)
		return -1;
	switch (which) {
	case OPT_TEMPLATE:
		options.template = kept;
		break;
	case OPT_VM:
		options.vm = kept;
		break;
	case OPT_NO_VM:
		options.no_vm = true;
		break;
	case OPT_IMAGE:
		add_value(options.images, &options.image_count, kept);
		break;
	case OPT_MOUNT:
		add_value(options.mounts, &options.mount_count, kept);
		break;
	case OPT_USER_DATA:
		options.user_data = kept;
		break;
	case OPT_BOOT:
		options.boot = kept;
		break;
	}
	return 0;
}

int register_options(spank_t sp)
{
	for (size_t i = 0; i < TABLE_LENGTH; i++)
		if (spank_option_register(sp, &table[i]) != ESPANK_SUCCESS)
			return -1;
	return 0;
}

/* sbatch hands its options to inner commands in the environment: what is left after this was typed here. */
void forget_inherited_options(void)
{
	char name[128];

	for (size_t i = 0; i < TABLE_LENGTH; i++) {
		snprintf(name, sizeof(name), "SLURM_SPANK__" SENT_OPTION "%s", table[i].name);
		for (char *at = name; *at; at++) /* Slurm makes a variable's name of it (tried) */
			if (*at == '-')
				*at = '_';
		unsetenv(name);
	}
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? strdup(value) : NULL; /* the variable may be unset later */
}

/* The command line wins; the template only counts where a job is made. */
void take_environment_options(bool with_template)
{
	if (!options.vm && !options.no_vm)
		options.vm = environment(VAR_VM);
	if (options.vm && (!strcmp(options.vm, "1") || !strcmp(options.vm, "all")))
		options.vm = "";
	if (!with_template)
		return;
	if (!options.template)
		options.template = environment(VAR_TEMPLATE);
	if (!options.image_count && (options.images[0] = environment(VAR_IMAGE)))
		options.image_count = 1;
	if (!options.mount_count && (options.mounts[0] = environment(VAR_MOUNT)))
		options.mount_count = 1;
	if (!options.user_data)
		options.user_data = environment(VAR_USER_DATA);
}

/* What sbatch and salloc have used must not reach the job as a request of its own. */
void drop_environment_options(void)
{
	for (size_t i = 0; i < sizeof(environment_names) / sizeof(environment_names[0]); i++)
		unsetenv(environment_names[i]);
}

/* Returns the number of VMs of `TPL[:N],...`, 0 when the text is not of that form (the client check says why). */
long count_vms(const char *template)
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
