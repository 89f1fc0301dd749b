/* What srun itself does with a command, as far as tasks in VMs must know it: several programs, files that it copies,
 * variables that it exports. */
#include "client.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ATTACH PCOCC_LIBEXEC "/attach "

/* Tells whether the variable that stands for an option without a value turns it on, by srun's rules. */
static bool is_yes(const char *value)
{
	return value && (!*value || !strcasecmp(value, "yes") || strtol(value, NULL, 10) != 0);
}

bool has_programs(const struct words *typed)
{
	return typed->programs || is_yes(getenv("SLURM_SRUN_MULTI"));
}

static void set_or_unset(const char *name, const char *value)
{
	if (value)
		setenv(name, value, 1);
	else
		unsetenv(name);
}

/* Notes in the step's environment how srun was told to treat its command. */
void name_wishes(const struct words *typed)
{
	const char *variable = getenv("SRUN_EXPORT_ENV") ? getenv("SRUN_EXPORT_ENV") : getenv("SLURM_EXPORT_ENV");

	set_or_unset(ENV_STEP_EXPORT, typed->exported ? typed->exported : variable);
	set_or_unset(ENV_STEP_BCAST, typed->bcast || getenv("SLURM_BCAST") ? "1" : NULL);
	set_or_unset(ENV_STEP_PROGRAMS, SRUN_RENAMES_PROGRAMS && has_programs(typed) ? "1" : NULL);
}

/* Returns where the program of a line `RANKS PROGRAM WORDS` of srun(1)'s file begins; NULL where there is none. */
static const char *find_program(const char *line, const char *end)
{
	while (line < end && isspace((unsigned char)*line))
		line++;
	if (line == end || *line == '#')
		return NULL;
	while (line < end && !isspace((unsigned char)*line))
		line++;
	while (line < end && isspace((unsigned char)*line))
		line++;
	return line < end ? line : NULL;
}

/* Returns srun's file of programs with the attach client in front of each; a line that ends with a backslash goes
 * on in the next. */
char *render_programs(const char *file)
{
	struct text text = { 0 };
	bool goes_on = false;

	text_add(&text, "%s", "");
	while (*file) {
		const char *end = strchrnul(file, '\n'), *program = goes_on ? NULL : find_program(file, end);
		const char *here = program ? program : end;
		text_add(&text, "%.*s%s%.*s", (int)(here - file), file, program ? ATTACH : "", (int)(end - here), here);
		goes_on = end > file ? end[-1] == '\\' : goes_on; /* srun sees no empty lines */
		if (*end)
			text_add(&text, "\n");
		file = *end ? end + 1 : end;
	}
	return text.data;
}

/* Has the tasks' own slurmstepd start the attach client, for releases where the plugin cannot name it there: srun
 * sends them the file of programs as it is then. */
void rename_programs(spank_t sp)
{
	int count = 0;
	char **argv = NULL;

	if (getenv(ENV_STEP_PROGRAMS) && spank_get_item(sp, S_JOB_ARGV, &count, &argv) == ESPANK_SUCCESS && count > 1)
		argv[1] = render_programs(argv[1]);
}
