/* A task of a VM step as slurmstepd starts it, on a node that has no namespace of its job; says how many ms it would have slept.
 *
 * Words: after how many ms root's helper begins there, after how many it ends, and after how many the namespace is there. */
#include "../../spank/pcocc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct options options;
static long slept, begins, ends, appears; /* in ms */

int usleep(useconds_t microseconds)
{
	slept += microseconds / 1000;
	return 0;
}

int enter_netns(uint32_t job, int *previous)
{
	(void)job;
	(void)previous;
	errno = ENOENT;
	return slept < appears;
}

bool has_lock(uint32_t job, int flags)
{
	(void)flags;
	errno = ENOSYS; /* as any call may leave it */
	return job == 7 && slept >= begins && slept < ends;
}

spank_err_t spank_get_item(spank_t sp, spank_item_t item, ...)
{
	va_list words;

	(void)sp;
	if (item != S_JOB_ID && item != S_JOB_STEPID && item != S_TASK_GLOBAL_ID && item != S_JOB_TOTAL_TASK_COUNT)
		return ESPANK_ERROR;
	va_start(words, item);
	*va_arg(words, uint32_t *) = item == S_JOB_ID ? 7 : item == S_JOB_TOTAL_TASK_COUNT;
	va_end(words);
	return ESPANK_SUCCESS;
}

spank_err_t spank_getenv(spank_t sp, const char *name, char *value, int size)
{
	const char *found = getenv(name);

	(void)sp;
	if (!found)
		return ESPANK_ENV_NOEXIST;
	snprintf(value, (size_t)size, "%s", found);
	return ESPANK_SUCCESS;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 1;
	begins = strtol(argv[1], NULL, 10);
	ends = strtol(argv[2], NULL, 10);
	appears = strtol(argv[3], NULL, 10);
	if (stepd_task_privileged(NULL))
		return 2;
	printf("%ld\n", slept);
	fflush(stdout);
	return stepd_task(NULL) ? 0 : 3; /* it ends the task itself where there is no namespace */
}
