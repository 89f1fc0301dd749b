/* The only place that starts a process as root: libexec/pcocc/node, whose stdin is all that it gets from the user. */
#include "pcocc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUIET_LIMIT_MS 30000 /* without any CPU time: then it is stuck. On a busy node it is slow, but gets some */
#define TIME_LIMIT_MS 300000 /* in all */
#define NOT_FOUND 127 /* the exit status of a child that found no program, as in sh */
#define START_LIMIT_MS 600000 /* at slurmd's start, for both: many jobs may have to be released, and nobody waits */

static const char program[] = PCOCC_LIBEXEC "/node";
static char *const clean_environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL };

static int text_file(const char *text)
{
	int fd = memfd_create("pcocc-helper", MFD_CLOEXEC);
	size_t length = strlen(text);

	if (fd >= 0 && pwrite(fd, text, length, 0) != (ssize_t)length) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Called in the forked child. slurmstepd has threads, so only async-signal-safe calls are allowed. It never returns. */
static void become_helper(const char *verb, int input, int output, int notes)
{
	char *const argv[] = { (char *)program, (char *)verb, NULL };
	sigset_t none;

	if (syscall(SYS_setresuid, 0, 0, 0) || syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, 0, 0, 0))
		_exit(126);
	int oom = open("/proc/self/oom_score_adj", O_WRONLY); /* slurmstepd is exempt from the OOM killer; its children must not be */
	setsid();
	if ((oom >= 0 && write(oom, "0", 1) < 0) || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(notes, 2) < 0 || chdir("/"))
		_exit(126);
	if (syscall(SYS_close_range, 3U, ~0U, 0U)) /* a kernel before 5.9 */
		for (long fd = sysconf(_SC_OPEN_MAX) - 1; fd > 2; fd--)
			close((int)fd);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	execve(program, argv, clean_environment);
	_exit(NOT_FOUND);
}

/* Returns the CPU time in ns that a process has used; 0 when it has ended. */
static long long cpu_time(pid_t pid)
{
	struct timespec used = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &used))
		return 0;
	return used.tv_sec * 1000000000LL + used.tv_nsec;
}

/* Returns the CPU time of a helper and of the processes that it has started (proc(5): children). */
static long long helper_time(pid_t helper)
{
	char path[64], list[512] = "", *at = list, *next;
	long long sum = cpu_time(helper);

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", helper, helper);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, list, sizeof(list) - 1) > 0)
		for (pid_t pid; (pid = (pid_t)strtol(at, &next, 10)) > 0; at = next)
			sum += cpu_time(pid);
	close(fd);
	return sum;
}

/* Returns true when the helper ended by itself within the limits, in ms, and sets its exit status. */
static bool wait_for_helper(pid_t child, int quiet_limit, int limit, int *exit_status)
{
	int status = 0;
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0); /* -1 before Linux 5.3, or without descriptors: then we poll */
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	int tick = pidfd < 0 ? 50 : 1000;
	long long used = 0;
	pid_t ended = 0;

	for (int waited = 0, quiet = 0; !(ended = waitpid(child, &status, WNOHANG)); waited += tick) {
		if (quiet >= quiet_limit || waited >= limit)
			break;
		poll(&end, pidfd >= 0, tick);
		long long before = used;
		quiet = (used = helper_time(child)) == before ? quiet + tick : 0;
	}
	if (!ended)
		kill(-child, SIGKILL);
	close(pidfd);
	while (!ended && (ended = waitpid(child, &status, 0)) < 0 && errno == EINTR)
		ended = 0;
	*exit_status = WEXITSTATUS(status);
	return ended == child && WIFEXITED(status);
}

static char *read_output(int fd)
{
	struct stat status;
	size_t length = fstat(fd, &status) || status.st_size > 1 << 22 ? 0 : (size_t)status.st_size;
	char *data = calloc(1, length + 1);

	if (!data || pread(fd, data, length, 0) < 0)
		abort(); /* as Slurm's own xmalloc */
	return data;
}

/* When the helper is killed, its output says what it was doing (node/doing.py). */
static void explain_failure(struct helper_result *result)
{
	struct text text = { 0 };
	char host[256] = "this node";

	gethostname(host, sizeof(host) - 1);
	if (result->ended && result->status == NOT_FOUND)
		text_add(&text, "pcocc: error: the pcocc runtime is not installed on %s (%s)\nhint: ask the admins to install it there\n",
			 host, program);
	else
		text_add(&text, "pcocc: error: the network helper of %s %s%s\n"
			 "hint: ask the admins to look into slurmd's log there, and at the node's load\n",
			 host, result->ended ? "has failed" : "was killed or took longer than it may, ",
			 result->ended ? "" : *result->output ? result->output : "before it began");
	free(result->output);
	result->output = text.data;
}

/* What the helper writes to stderr is for the admins, and goes to slurmd's log. */
static void log_notes(char *notes)
{
	for (char *line; (line = strsep(&notes, "\n"));)
		if (*line)
			slurm_info("%s", line);
}

void run_helper(const char *verb, const char *input, struct helper_result *result)
{
	bool waited_for = strcmp(verb, HELPER_START);
	int quiet_limit = waited_for ? QUIET_LIMIT_MS : START_LIMIT_MS, limit = waited_for ? TIME_LIMIT_MS : START_LIMIT_MS;
	int in = text_file(input), out = memfd_create("pcocc-helper", MFD_CLOEXEC);
	int err = memfd_create("pcocc-helper", MFD_CLOEXEC);
	pid_t child = in < 0 || out < 0 || err < 0 ? -1 : fork();

	if (child == 0)
		become_helper(verb, in, out, err);
	result->ended = child > 0 && wait_for_helper(child, quiet_limit, limit, &result->status);
	result->output = read_output(out);
	char *notes = read_output(err);
	if (!result->ended || result->status == NOT_FOUND || (result->status == 1 && !*result->output))
		explain_failure(result);
	log_notes(notes);
	free(notes);
	close(in);
	close(out);
	close(err);
}

/* Closes sockets: a process that outlives slurmd must not hold the port that the next slurmd listens on. */
static void close_sockets(void)
{
	struct stat status;

	for (int fd = 3; fd < 4096; fd++)
		if (!fstat(fd, &status) && S_ISSOCK(status.st_mode))
			close(fd);
}

/* Starts a helper without holding slurmd up: a process of its own waits for it and writes to slurmd's log when it fails. */
void spawn_start_helper(void)
{
	struct helper_result result = { 0 };
	pid_t child = fork();

	if (child == 0) {
		if (fork())
			_exit(0);
		close_sockets();
		run_helper(HELPER_START, "", &result);
		if (!result.ended || result.status)
			slurm_error("%.*s", (int)strcspn(result.output, "\n"), result.output);
		_exit(0);
	}
	if (child > 0)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			continue;
}
