/* Differences between Slurm 22.05 and 26.05, hidden by types and functions that are the same for all; meson.build checks them. */
#ifndef PCOCC_COMPAT_H
#define PCOCC_COMPAT_H

#include <string.h>

#include <slurm/slurm.h>
#include <slurm/spank.h>

#include "config.h" /* HAVE_*, PCOCC_LIBEXEC, PCOCC_CLIENT_OBJECT, PCOCC_LIBPYTHON (made by meson) */
#include "wire.h" /* names shared with Lua and Python (rendered from pcocc_runtime/documents/wire*.py) */

/* From 23.11 on hostlist_t is a struct; before, it was a pointer to it. */
typedef __typeof__(slurm_hostlist_create(NULL)) hosts_t;

static inline slurm_step_id_t id_of_step(uint32_t job, uint32_t step)
{
	return (slurm_step_id_t){ .job_id = job, .step_id = step, .step_het_comp = NO_VAL };
}

/* From 25.11 on these four functions take a step's id instead of two numbers. */
static inline int load_steps(uint32_t job, job_step_info_response_msg_t **steps)
{
#if HAVE_STEPS_BY_ID
	slurm_step_id_t all = id_of_step(job, NO_VAL);
	return slurm_get_job_steps(&all, steps, SHOW_ALL);
#else
	return slurm_get_job_steps((time_t)0, job, NO_VAL, steps, SHOW_ALL);
#endif
}

static inline void terminate_step(uint32_t job, uint32_t step)
{
#if HAVE_STEPS_BY_ID
	slurm_step_id_t id = id_of_step(job, step);
	slurm_terminate_job_step(&id);
#else
	slurm_terminate_job_step(job, step);
#endif
}

static inline void complete_job(uint32_t job, uint32_t status)
{
#if HAVE_STEPS_BY_ID
	slurm_step_id_t id = id_of_step(job, NO_VAL);
	slurm_complete_job(&id, status);
#else
	slurm_complete_job(job, status);
#endif
}

/* From 23.11 on with flags, which are 0 here. */
static inline void kill_step(uint32_t job, uint32_t step, uint16_t signal_number)
{
#if HAVE_STEPS_BY_ID
	slurm_step_id_t id = id_of_step(job, step);
	slurm_kill_job_step(&id, signal_number, 0);
#elif HAVE_KILL_STEP_FLAGS
	slurm_kill_job_step(job, step, signal_number, 0);
#else
	slurm_kill_job_step(job, step, signal_number);
#endif
}

/* From 26.05 on this takes a step's id, too. */
static inline int load_job(uint32_t job, job_info_msg_t **jobs)
{
#if HAVE_JOB_BY_ID
	return slurm_load_job(jobs, id_of_step(job, NO_VAL), SHOW_ALL | SHOW_DETAIL);
#else
	return slurm_load_job(jobs, job, SHOW_ALL | SHOW_DETAIL);
#endif
}

/* Before 23.11 srun itself renames the programs of a step of several (programs.c). */
enum { SRUN_RENAMES_PROGRAMS = !HAVE_SPANK_PREPEND_TASK_ARGV };

/* Makes a task run a program, given by its path, with the task's own command as arguments. From 23.11 on, Slurm does that
 * after this hook has returned. In earlier releases, the program replaces the command's first word, and finds that word in
 * ENV_FIRST_WORD; they do not show the programs of a step that has several (--multi-prog). */
static inline int prepend_program(spank_t sp, const char *path)
{
#if HAVE_SPANK_PREPEND_TASK_ARGV
	return spank_prepend_task_argv(sp, 1, &path) ? -1 : 0;
#else
	int count = 0;
	char **argv = NULL, several[4];

	if (spank_getenv(sp, ENV_STEP_PROGRAMS, several, sizeof(several)) == ESPANK_SUCCESS)
		return 0;
	if (spank_get_item(sp, S_JOB_ARGV, &count, &argv) || count < 1 || spank_setenv(sp, ENV_FIRST_WORD, argv[0], 1))
		return -1;
	argv[0] = strdup(path);
	return argv[0] ? 0 : -1;
#endif
}

#endif
