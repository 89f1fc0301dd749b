/* Shared by the files that run only in srun, sbatch and salloc, with the user's rights. */
#ifndef PCOCC_CLIENT_H
#define PCOCC_CLIENT_H

#include "pcocc.h"

/* words.c: what the user typed in front of srun's command; NULL where he typed nothing */
struct words {
	const char *template;
	const char *vm; /* "" without a value */
	const char *job;
	const char *tasks;
	bool no_vm;
	bool placed; /* the user says where the tasks run, or how many run on a node */
};
void read_words(int count, char **words, struct words *found);
void read_own_words(struct words *found);

/* sizing.c */
struct target {
	bool in_job; /* srun makes a step of a job: of the one it runs in, or of the one --jobid names */
	uint32_t other; /* the job that --jobid names, when it is not the one srun runs in; else 0 */
};
extern struct target target;
void size_srun(void);
long count_job_vms(void);

/* place.c */
bool place_tasks(uint32_t job, const char *set, long tasks, const struct words *typed);
void forget_places(void);

/* variables.c */
void forget_inherited_options(void);
const char *read_variable(const char *name);
void take_variables(bool with_template);
void drop_variables(void);
void drop_job_variables(void);

/* request.c */
bool check_request(spank_t sp);

/* embed.c: returns CHECK_PASSED, CHECK_REFUSED or CHECK_BROKEN */
int embed_check(const char *request, char *answer, size_t size);

/* bootstep.c */
struct boot_step {
	bool running;
	uint32_t id;
	long age; /* seconds it has run */
	long vms;
};
enum boot_outcome { VMS_RUN, VMS_BOOT, VMS_FAILED };
bool find_boot_step(uint32_t job, struct boot_step *found);
enum boot_outcome start_boot_step(uint32_t job);

#endif
