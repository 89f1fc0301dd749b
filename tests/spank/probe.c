/* A SPANK plugin that says what srun itself makes of a command line, before srun asks anything of a slurmctld.
 *
 * With PROBE_TABLE set: srun's own table of options, a line `NAME HAS_ARG` each, and its letters. Else the values of pcocc's options. */
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/spank.h>

#include "wire.h"

const char plugin_name[] = "probe";
const char plugin_type[] = "spank";
const unsigned int plugin_version = SLURM_VERSION_NUMBER;
const unsigned int spank_plugin_version = 1;

static const char *names[] = { "template", "vm", "no_vm" };
static char *values[3];

static int take(int which, const char *value, int remote)
{
	(void)remote;
	values[which] = strdup(value ? value : "");
	return 0;
}

static struct spank_option options[] = {
	{ OPTION_TEMPLATE, "X", "x", 1, 0, take },
	{ OPTION_VM, "X", "x", 2, 1, take },
	{ OPTION_NO_VM, NULL, "x", 0, 2, take },
	{ OPTION_IMAGE, "X", "x", 1, 3, NULL },
	{ OPTION_MOUNT, "X", "x", 1, 3, NULL },
	{ OPTION_USER_DATA, "X", "x", 1, 3, NULL },
	{ OPTION_USER_DATA_FORCE, NULL, "x", 0, 3, NULL },
	{ OPTION_RESTART, "X", "x", 1, 3, NULL },
	{ OPTION_CHECKPOINT, "X", "x", 1, 3, NULL },
	{ OPTION_BOOT, "X", "x", 1, 3, NULL },
};

static void print_table(void)
{
	void *state = dlsym(RTLD_DEFAULT, "opt");
	struct option *(*create)(void *, char **) = (struct option * (*)(void *, char **)) dlsym(RTLD_DEFAULT, "slurm_option_table_create");
	char *letters = NULL;

	for (struct option *row = create(state, &letters); row->name; row++)
		printf("%s %d\n", row->name, row->has_arg);
	printf("%s\n", letters);
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
	(void)ac;
	(void)av;
	if (getenv("PROBE_TABLE")) {
		print_table();
		exit(0);
	}
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		spank_option_register(sp, &options[i]);
	return 0;
}

int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	(void)sp;
	(void)ac;
	(void)av;
	const char *comma = "";
	printf("{");
	for (int i = 0; i < 3; i++)
		if (values[i]) {
			printf("%s\"%s\": \"%s\"", comma, names[i], i == 2 ? "1" : values[i]);
			comma = ", ";
		}
	printf("}\n");
	fflush(stdout);
	_exit(0);
}
