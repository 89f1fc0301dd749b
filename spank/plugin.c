/* The hooks that Slurm calls. Each has one switch over contexts, and does nothing for a step without our options. */
#include "pcocc.h"

#define EXPORT __attribute__((visibility("default")))
#define HOOK(name) EXPORT int name(spank_t sp, __attribute__((unused)) int ac, __attribute__((unused)) char **av)

EXPORT const char plugin_name[] = "pcocc";
EXPORT const char plugin_type[] = "spank";
EXPORT const unsigned int plugin_version = SLURM_VERSION_NUMBER;
EXPORT const unsigned int spank_plugin_version = 1;
EXPORT const char pcocc_version[] = PCOCC_VERSION; /* for pcocc node check */

HOOK(slurm_spank_init)
{
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
		client_init(sp);
		return register_options(sp);
	case S_CTX_REMOTE:
		return register_options(sp);
	case S_CTX_SLURMD:
		spawn_start_helper();
		return 0;
	default:
		return 0;
	}
}

HOOK(slurm_spank_init_post_opt)
{
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
		return client_post_opt(sp);
	case S_CTX_REMOTE:
		return stepd_post_opt(sp);
	default:
		return 0;
	}
}

HOOK(slurm_spank_local_user_init)
{
	return client_local_user(sp);
}

HOOK(slurm_spank_task_init_privileged)
{
	return spank_remote(sp) == 1 ? stepd_task_privileged(sp) : 0;
}

HOOK(slurm_spank_task_init)
{
	return spank_remote(sp) == 1 ? stepd_task(sp) : 0;
}

HOOK(slurm_spank_exit)
{
	return spank_context() == S_CTX_REMOTE ? stepd_exit(sp) : 0;
}
