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
	const char *exported; /* --export */
	const char *command; /* its first word */
	bool no_vm;
	bool no_shell; /* salloc leaves its job to others */
	bool bcast;
	bool programs; /* --multi-prog */
	bool placed; /* the user says where the tasks run, or how many run on a node */
};
void read_words(int count, char **words, struct words *found);
void read_own_words(struct words *found); /* once in a process */
const char *find_set(const char *word);

/* sizing.c */
struct target {
	bool in_job; /* srun makes a step of a job that exists: the one it runs in, or the one that --jobid names */
	uint32_t job; /* that job */
	uint32_t other; /* the same, if it is not the one that srun runs in; else 0 */
};
extern struct target target;
void find_target(const struct words *typed);
void size_srun(const struct words *typed);
long count_job_vms(void);

/* place.c */
bool place_tasks(uint32_t job, const char *set, long tasks, const struct words *typed);
void forget_places(void);

/* programs.c */
bool has_programs(const struct words *typed);
void name_wishes(const struct words *typed);
char *render_programs(const char *file);
void rename_programs(spank_t sp);

/* variables.c */
void forget_inherited_options(void);
const char *read_variable(const char *name);
void take_variables(bool with_template);
void drop_variables(void);
void drop_job_variables(void);
void drop_step_variables(void);

/* kept.c */
void keep_cluster(spank_t sp);
bool recall_cluster(uint32_t job);

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
