/* The option table. */
#include "pcocc.h"

#include <stdlib.h>
#include <string.h>

struct options options;

enum { OPT_TEMPLATE, OPT_VM, OPT_NO_VM, OPT_IMAGE, OPT_MOUNT, OPT_USER_DATA, OPT_FORCE, OPT_BOOT, OPT_RESTART, OPT_CHECKPOINT };

static int take_option(int which, const char *value, int remote);

static struct spank_option table[] = {
	{ OPTION_TEMPLATE, "TPL[:N][,TPL[:N]...]",
	  "[pcocc] boot a virtual cluster of N VMs (default 1) of each template TPL for this job", 1, OPT_TEMPLATE, take_option },
	{ OPTION_VM, "VMS",
	  "[pcocc] run this step's tasks (sbatch: the batch script) in the job's VMs; VMS is a set such as vm[0-3,7], default all",
	  2, OPT_VM, take_option },
	{ OPTION_NO_VM, NULL, "[pcocc] run on the hosts although --pcocc-template is given", 0, OPT_NO_VM, take_option },
	{ OPTION_IMAGE, "[TPL=]IMAGE", "[pcocc] another boot image, for all templates or for TPL", 1, OPT_IMAGE, take_option },
	{ OPTION_MOUNT, "TAG=PATH[,type=9p|virtiofs][,readonly]", "[pcocc] export a host directory to VMs", 1, OPT_MOUNT, take_option },
	{ OPTION_USER_DATA, "FILE", "[pcocc] other cloud-init user-data for this job's VMs", 1, OPT_USER_DATA, take_option },
	{ OPTION_USER_DATA_FORCE, NULL, "[pcocc] pass on user-data that pcocc would refuse", 0, OPT_FORCE, take_option },
	{ OPTION_RESTART, "DIR", "[pcocc] go on from a checkpoint that 'pcocc checkpoint DIR' has made", 1, OPT_RESTART, take_option },
	{ OPTION_CHECKPOINT, "DIR[,every=TIME][,at-end]", "[pcocc] store the VMs now and then", 1, OPT_CHECKPOINT, take_option },
	{ OPTION_BOOT, "SETS", "[pcocc] internal: marks the step that boots the VMs", 1, OPT_BOOT, take_option },
};

#define TABLE_LENGTH (sizeof(table) / sizeof(table[0]))

/* Slurm may call back twice with the same value: it is kept once. */
static void add_value(const char **values, size_t *count, const char *value)
{
	for (size_t i = 0; i < *count && i < MAX_REPEAT; i++)
		if (!strcmp(values[i], value))
			return;
	values[*count < MAX_REPEAT ? *count : 0] = value; /* more are refused */
	(*count)++;
}

static int take_option(int which, const char *value, int remote)
{
	static const char **const texts[] = { [OPT_TEMPLATE] = &options.template, [OPT_VM] = &options.vm, [OPT_BOOT] = &options.boot,
		[OPT_USER_DATA] = &options.user_data, [OPT_RESTART] = &options.restart, [OPT_CHECKPOINT] = &options.checkpoint };
	(void)remote;
	const char *kept = strdup(value ? value : "");
	if (!kept)
		return -1;
	if (which == OPT_IMAGE)
		add_value(options.images, &options.image_count, kept);
	else if (which == OPT_MOUNT)
		add_value(options.mounts, &options.mount_count, kept);
	else if (which == OPT_NO_VM)
		options.no_vm = true;
	else if (which == OPT_FORCE)
		options.user_data_force = true;
	else
		*texts[which] = kept;
	return 0;
}

int register_options(spank_t sp)
{
	for (size_t i = 0; i < TABLE_LENGTH; i++)
		if (spank_option_register(sp, &table[i]) != ESPANK_SUCCESS)
			return -1;
	return 0;
}
