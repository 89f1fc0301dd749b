/* The job's network namespace and its taps: system calls that are made as root in a task's own process. */
#include "pcocc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#define NSFS_MAGIC 0x6e736673 /* linux/magic.h */

/* Moves this thread into the job's namespace; unless `previous` is NULL, it becomes a descriptor of the former namespace. */
int enter_netns(uint32_t job, int *previous)
{
	char path[64];
	struct statfs fs;

	snprintf(path, sizeof(path), NETNS_PATH "%u", job);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	if (fstatfs(fd, &fs) || fs.f_type != NSFS_MAGIC) {
		close(fd);
		errno = ENOENT; /* made, but not mounted yet */
		return -1;
	}
	if (previous && (*previous = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) < 0) {
		close(fd);
		return -1;
	}
	int result = setns(fd, CLONE_NEWNET);
	close(fd);
	if (result && previous)
		close(*previous);
	return result;
}

void leave_netns(int previous)
{
	if (setns(previous, CLONE_NEWNET))
		_exit(1); /* a task must never go on in the wrong namespace */
	close(previous);
}

/* Tells whether a job has its lock on this node (node/records.py): while it is being set up, and as long as it is. */
bool has_lock(uint32_t job, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), RUN_PATH "/.state/%u.lock", job);
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	close(fd);
	return fd >= 0;
}

/* Opens a tap of the current namespace, or one queue of it; the descriptor stays open over exec. */
int open_tap(const char *name, bool queued)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queued ? IFF_MULTI_QUEUE : 0)) };
	int fd = open("/dev/net/tun", O_RDWR);

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (fd >= 0 && ioctl(fd, TUNSETIFF, &request)) {
		close(fd);
		return -1;
	}
	return fd;
}
