/* The first srun that needs the VMs starts the step that boots them, and waits until they answer. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds. A step's credential is valid for 120 (cred_expire of AuthInfo in slurm.conf), and its tasks must start
 * before that. */
#define LONGEST_WAIT 90

static const char program[] = PCOCC_LIBEXEC "/boot";

/* Asks slurmctld for the job's boot step; returns false when slurmctld does not answer. */
bool find_boot_step(uint32_t job, struct boot_step *found)
{
	job_step_info_response_msg_t *steps = NULL;

	*found = (struct boot_step){ 0 };
	if (load_steps(job, &steps))
		return false;
	for (uint32_t i = 0; i < steps->job_step_count; i++) {
		job_step_info_t *step = &steps->job_steps[i];
		if (step->name && !strcmp(step->name, BOOT_STEP) && (step->state & JOB_STATE_BASE) == JOB_RUNNING)
			*found = (struct boot_step){ true, step->step_id.step_id, (long)step->run_time, (long)step->num_tasks };
	}
	slurm_free_job_step_info_response_msg(steps);
	return true;
}

/* Called in the forked child: becomes a process that outlives this srun. It never returns. */
static void become_starter(uint32_t job, int status, int parent)
{
	char number[16];
	char *const argv[] = { (char *)program, number, NULL };
	sigset_t none;

	snprintf(number, sizeof(number), "%u", job);
	setsid();
	if (fork())
		_exit(0);
	int high_status = fcntl(status, F_DUPFD_CLOEXEC, 10), high_parent = fcntl(parent, F_DUPFD_CLOEXEC, 10);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (dup2(null, 0) < 0 || dup2(2, 1) < 0 || dup2(high_status, STATUS_FD) < 0 || dup2(high_parent, PARENT_FD) < 0)
		_exit(126);
	syscall(SYS_close_range, 5U, ~0U, 0U);
	for (int signal_number = 1; signal_number < NSIG; signal_number++)
		signal(signal_number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(program, argv);
	static const char sorry[] = "pcocc: error: " PCOCC_LIBEXEC "/boot cannot be started on this host\n"
				    "hint: ask the admins to install the pcocc runtime here\n";
	ssize_t ignored = write(2, sorry, sizeof(sorry) - 1);
	(void)ignored;
	_exit(127);
}

static volatile sig_atomic_t interruption;

static void note_interruption(int number)
{
	interruption = number;
}

/* srun waits for its signals in a thread, by sigwait(); the kernel gives them to the main thread if that does not
 * block them. */
struct attention {
	struct sigaction interrupt, terminate;
	sigset_t mask;
};

static void pay_attention(struct attention *former)
{
	struct sigaction note = { .sa_handler = note_interruption };
	sigset_t wanted;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGINT);
	sigaddset(&wanted, SIGTERM);
	sigaction(SIGINT, &note, &former->interrupt);
	sigaction(SIGTERM, &note, &former->terminate);
	pthread_sigmask(SIG_UNBLOCK, &wanted, &former->mask);
}

static void restore_attention(const struct attention *former)
{
	pthread_sigmask(SIG_SETMASK, &former->mask, NULL);
	sigaction(SIGINT, &former->interrupt, NULL);
	sigaction(SIGTERM, &former->terminate, NULL);
}

static time_t monotonic_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* Returns what the starter reports, or VMS_BOOT when it has not reported within LONGEST_WAIT. */
static enum boot_outcome read_report(int fd)
{
	char word[16] = "";
	size_t length = 0;
	struct pollfd status = { .fd = fd, .events = POLLIN };
	time_t begin = monotonic_seconds();

	while (length < sizeof(word) - 1 && !memchr(word, '\n', length)) {
		int ready = poll(&status, 1, 200);
		if (ready < 0 && errno != EINTR)
			return VMS_FAILED;
		if (ready <= 0) {
			if (interruption)
				return VMS_FAILED;
			if (monotonic_seconds() - begin >= LONGEST_WAIT)
				return VMS_BOOT;
			continue;
		}
		ssize_t got = read(fd, word + length, sizeof(word) - 1 - length);
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	word[strcspn(word, "\n")] = '\0';
	if (!strcmp(word, BOOT_READY))
		return VMS_RUN;
	return strcmp(word, BOOT_JOINED) ? VMS_FAILED : VMS_BOOT;
}

/* Boots the VMs. Returns when they run, when they cannot, or after LONGEST_WAIT while they are still booting. */
enum boot_outcome start_boot_step(uint32_t job)
{
	int status[2], parent[2];

	/* the starter sees in `parent` when this srun ends, which alone has its write end open */
	if (pipe2(status, O_CLOEXEC) || pipe2(parent, O_CLOEXEC)) {
		complain("this host has too many open files", "the VMs cannot be booted: %s", strerror(errno));
		return VMS_FAILED;
	}
	pid_t child = fork();
	if (child == 0) {
		close(status[0]);
		close(parent[1]);
		become_starter(job, status[1], parent[0]);
	}
	close(status[1]);
	close(parent[0]);
	if (child > 0)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			continue;
	struct attention former;
	pay_attention(&former);
	enum boot_outcome outcome = child > 0 ? read_report(status[0]) : VMS_FAILED;
	restore_attention(&former);
	close(status[0]);
	if (interruption)
		complain(NULL, "interrupted while the VMs of job %u were booting", job);
	return outcome;
}
