/* Shared by all files of pcocc's SPANK plugin, which has no libpython: docs/decisions/001-two-objects.md. */
#ifndef PCOCC_H
#define PCOCC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "compat.h"

#define MAX_REPEAT 64 /* how often --pcocc-image and --pcocc-mount may be given */
#define MAX_PATIENCE 60 /* seconds that a VM step's task waits at most for a namespace that nobody is making */
#define SETUP_PATIENCE 300 /* and for one that is being made: as long as root's helper may take (helper.c) */

/* The options given in this process; the strings live as long as it. */
struct options {
	const char *template;
	const char *vm; /* "" when --pcocc-vm was given without a value */
	const char *user_data;
	const char *boot, *restart, *checkpoint;
	const char *images[MAX_REPEAT];
	const char *mounts[MAX_REPEAT];
	size_t image_count;
	size_t mount_count;
	bool no_vm;
	bool user_data_force;
};

extern struct options options;

/* options.c */
int register_options(spank_t sp);

/* client.c: srun, sbatch, salloc, with the user's rights */
void client_init(spank_t sp);
int client_post_opt(spank_t sp);
int client_local_user(spank_t sp);

/* stepd.c: slurmstepd, as root or as the task */
int stepd_post_opt(spank_t sp);
int stepd_task_privileged(spank_t sp);
int stepd_task(spank_t sp);
int stepd_exit(spank_t sp);

/* helper.c */
struct helper_result {
	bool ended; /* by itself, in time */
	int status; /* its exit status, when it has */
	char *output; /* malloc'ed, never NULL after run_helper */
};
void run_helper(const char *verb, const char *input, struct helper_result *result);
void spawn_start_helper(void);

/* netns.c */
int enter_netns(uint32_t job, int *previous);
void leave_netns(int previous);
bool has_lock(uint32_t job, int flags);
int open_tap(const char *name, bool queued);

/* text.c */
struct text {
	char *data;
	size_t length, size;
};
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void complain(const char *hint, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *find_line(const char *lines, const char *key, size_t *length);

#endif
