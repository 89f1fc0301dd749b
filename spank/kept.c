/* The cluster of a job that is in no command's environment (salloc --no-shell): a file of the user keeps it for srun.
 *
 * The file's name is a random word, which the filter puts into the job's AdminComment; see docs/decisions/023. */
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEPT_DAYS 100 /* after a file's last use; jobs end before that */
#define LONGEST (512 * 1024)

/* Opens the directory of these files, and makes it if `make` is true; returns -1 with errno when that fails. */
static int open_directory(bool make)
{
	const char *own = read_variable("PCOCC_USER_CONF_DIR"), *home = read_variable("HOME");
	char *parent = NULL, *path = NULL;
	int fd = -1;

	errno = ENOENT;
	if ((!own && !home) || asprintf(&parent, "%s%s", own ? own : home, own ? "" : "/.pcocc") < 0)
		return -1;
	if (asprintf(&path, "%s/jobs", parent) > 0) {
		if (make && ((mkdir(parent, 0777) && errno != EEXIST) || (mkdir(path, 0700) && errno != EEXIST)))
			make = false; /* opening it says why not */
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	free(parent);
	free(path);
	return fd;
}

static bool is_word(const char *name)
{
	return strlen(name) == KEPT_LENGTH && strspn(name, "0123456789abcdef") == KEPT_LENGTH;
}

/* Deletes what no job needs any more. */
static void remove_old(int directory)
{
	DIR *listing = fdopendir(dup(directory));
	struct dirent *entry;
	struct stat status;

	while (listing && (entry = readdir(listing)))
		if (is_word(entry->d_name) && !fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) &&
		    status.st_mtime < time(NULL) - KEPT_DAYS * 86400)
			unlinkat(directory, entry->d_name, 0);
	if (listing)
		closedir(listing);
}

static bool write_file(int directory, const char *name)
{
	int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool written = fd >= 0 && dprintf(fd, "%s\n%s", getenv(ENV_TEMPLATE), getenv(ENV_CLUSTER)) > 0;

	return fd >= 0 && close(fd) == 0 && written;
}

/* Keeps the cluster just checked, under a word that goes with the job. */
void keep_cluster(spank_t sp)
{
	unsigned char bytes[KEPT_LENGTH / 2];
	char word[KEPT_LENGTH + 1];
	int directory = open_directory(true);

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(word + 2 * i, 3, "%02x", bytes[i]);
	if (directory >= 0 && write_file(directory, word)) {
		spank_job_control_setenv(sp, JOB_KEPT, word, 1);
		remove_old(directory);
	} else
		complain("srun --jobid cannot boot the VMs of this job; use sbatch, or salloc without --no-shell",
			 "the job's VMs cannot be recorded in ~/.pcocc/jobs: %s", strerror(errno));
	if (directory >= 0)
		close(directory);
}

/* Returns our word in an AdminComment, which may also have texts of others; NULL when it is not there. */
static const char *find_word(char *comment)
{
	char *at = comment ? strstr(comment, KEPT_MARK) : NULL;

	if (!at || strlen(at += strlen(KEPT_MARK)) < KEPT_LENGTH)
		return NULL;
	at[KEPT_LENGTH] = '\0';
	return is_word(at) ? at : NULL;
}

/* Puts the content of a file into the environment, where commands inside a job have it from Slurm. */
static bool read_file(const char *word)
{
	int directory = open_directory(false);
	int fd = directory < 0 ? -1 : openat(directory, word, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char *data = fd < 0 ? NULL : calloc(1, LONGEST);
	ssize_t size = data ? read(fd, data, LONGEST - 1) : -1;
	char *cluster = size > 0 ? strchr(data, '\n') : NULL;

	if (cluster) {
		*cluster++ = '\0';
		setenv(ENV_TEMPLATE, data, 1);
		setenv(ENV_CLUSTER, cluster, 1);
		futimens(fd, NULL); /* it is in use */
	}
	free(data);
	if (fd >= 0)
		close(fd);
	if (directory >= 0)
		close(directory);
	return cluster != NULL;
}

/* Makes the cluster of a job known to this srun; returns false when it was not kept. */
bool recall_cluster(uint32_t job)
{
	job_info_msg_t *jobs = NULL;
	bool found = false;

	if (load_job(job, &jobs))
		return false;
	for (uint32_t i = 0; i < jobs->record_count && !found; i++) {
		const char *word = jobs->job_array[i].job_id == job ? find_word(jobs->job_array[i].admin_comment) : NULL;
		found = word && read_file(word);
	}
	slurm_free_job_info_msg(jobs);
	return found;
}
