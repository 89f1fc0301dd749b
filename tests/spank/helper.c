/* Runs the helper as slurmstepd would, on a kernel without some of its calls; prints how it ended, in how many ms, and what it said.
 *
 * Words: `pidfd`, `close_range` for the calls that are missing. The helper is the program of PCOCC_LIBEXEC. */
#include "../../spank/pcocc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void take_away(unsigned int number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

void slurm_info(const char *format, ...)
{
	(void)format;
}

void slurm_error(const char *format, ...)
{
	(void)format;
}

int main(int argc, char **argv)
{
	struct helper_result result = { 0 };
	struct timespec begin, end;

	for (int i = 1; i < argc; i++)
		take_away(strcmp(argv[i], "pidfd") ? SYS_close_range : SYS_pidfd_open);
	if (dup2(open("/dev/null", O_RDONLY), 77) != 77)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	run_helper(HELPER_SETUP, "end\n", &result);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%d %d %ld %s", result.ended, result.status, (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000,
	       result.output);
	return 0;
}
