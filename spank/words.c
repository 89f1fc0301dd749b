/* Reads what was typed after `srun` before srun does, and in the same way: by getopt_long with the same options. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OTHER = 1, TEMPLATE, VM, NO_VM, NO_SHELL, JOB, TASKS, PLACING, EXPORT, BCAST, PROGRAMS };

/* Options that matter here. The others are listed below, to find out where the command begins. */
static const struct option own[] = {
	{ OPTION_TEMPLATE, required_argument, NULL, TEMPLATE },
	{ OPTION_VM, optional_argument, NULL, VM },
	{ OPTION_NO_VM, no_argument, NULL, NO_VM },
	{ "no-shell", no_argument, NULL, NO_SHELL }, /* salloc's */
	{ "jobid", required_argument, NULL, JOB },
	{ "ntasks", required_argument, NULL, TASKS },
	{ "export", required_argument, NULL, EXPORT },
	{ "bcast", optional_argument, NULL, BCAST },
	{ "multi-prog", no_argument, NULL, PROGRAMS },
	{ "nodelist", required_argument, NULL, PLACING },
	{ "exclude", required_argument, NULL, PLACING },
	{ "distribution", required_argument, NULL, PLACING },
	{ "nodes", required_argument, NULL, PLACING },
	{ "nodefile", required_argument, NULL, PLACING },
	{ "relative", required_argument, NULL, PLACING },
	{ "ntasks-per-core", required_argument, NULL, PLACING },
	{ "ntasks-per-gpu", required_argument, NULL, PLACING },
	{ "ntasks-per-node", required_argument, NULL, PLACING },
	{ "ntasks-per-socket", required_argument, NULL, PLACING },
	{ "ntasks-per-tres", required_argument, NULL, PLACING },
	{ "tasks-per-node", required_argument, NULL, PLACING },
	{ "het-group", required_argument, NULL, PLACING },
	{ "pack-group", required_argument, NULL, PLACING },
	{ "spread-job", no_argument, NULL, PLACING },
	{ "use-min-nodes", no_argument, NULL, PLACING },
};

/* srun's other options, of all releases from 22.05 to 26.05 (src/common/slurm_opt.c); strtok splits them. */
static char with_value[] =
	OPTION_IMAGE " " OPTION_MOUNT " " OPTION_USER_DATA " " OPTION_CHECKPOINT " " OPTION_RESTART " " OPTION_BOOT " accel-bind "
	"account acctg-freq autocomplete bb bbf "
	"bcast-exclude begin chdir cluster cluster-constraint clusters comment constraint container container-id "
	"container-type "
	"context core-spec cores-per-socket cpu-bind cpu-freq cpu_bind cpus-per-gpu cpus-per-task deadline "
	"delay-boot dependency "
	"epilog error extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres "
	"gres-flags hint ignore-signals input job-name licenses mail-type mail-user mcs-label mem mem-bind "
	"mem-per-cpu mem-per-gpu "
	"mem-update mincpus mpi msg-timeout network open-mode output partition power prefer priority profile prolog qos "
	"reservation resources runtime segment signal slurmd-debug sockets-per-node switches task-epilog "
	"task-prolog thread-spec "
	"threads threads-per-core time time-min tmp treewidth tres-bind tres-per-task uid wait wckey";
static char with_optional_value[] =
	"compress exclusive external-launcher immediate kill-on-bad-exit nice no-kill oom-kill-step overlap propagate pty "
	"resv-ports send-libs x11";
static char without_value[] =
	OPTION_USER_DATA_FORCE " async consolidate-segments contiguous debugger-test disable-status exact help "
	"hold interactive label "
	"no-allocate overcommit oversubscribe parsable preserve-env quiet quit-on-interrupt reboot spread-segments stepmgr "
	"test-only unbuffered usage verbose version wait-for-children whole";
static const char letters[] = "+A:B:C:D:EF:G:HI::J:K::L:M:N:OQS:T:VW:XZb:c:d:e:hi:k::lm:n:o:p:q:r:st:uvw:x:";

/* What sbatch and salloc have beyond that, or with another meaning. */
static char batch_with_value[] = "array batch export-file kill-on-invalid-dep wait-all-nodes wrap";
static char batch_with_optional_value[] = "get-user-env kill-command";
static char batch_without_value[] = "bell ignore-pbs no-bell no-requeue requeue wait";
static const char batch_letters[] = "+A:B:C:D:EF:G:HI::J:K::L:M:N:OQS:T:VWXZa:b:c:d:e:hi:k::lm:n:o:p:q:r:st:uvw:x:";

/* Returns the set of VMs that a word is written as, which belongs behind --pcocc-vm=; NULL for any other word. */
const char *find_set(const char *word)
{
	word += *word == '=';
	bool is_set = !strncmp(word, "vm", 2) && word[2] && strspn(word + 2, "vm0123456789[],-") == strlen(word + 2);
	return is_set || !strcmp(word, "all") ? word : NULL;
}

static struct option table[256];

static struct option *add_options(struct option *next, char *names, int has_value)
{
	for (char *name = strtok(names, " "); name; name = strtok(NULL, " "))
		*next++ = (struct option){ name, has_value, NULL, OTHER };
	return next;
}

static bool is_srun(void)
{
	return !strcmp(program_invocation_short_name, "srun");
}

static void fill_table(void)
{
	if (table[0].name)
		return;
	memcpy(table, own, sizeof(own));
	struct option *next = table + sizeof(own) / sizeof(*own);
	if (!is_srun()) { /* of two equal names the first counts */
		next = add_options(next, batch_with_value, required_argument);
		next = add_options(next, batch_with_optional_value, optional_argument);
		next = add_options(next, batch_without_value, no_argument);
	}
	next = add_options(next, with_value, required_argument);
	next = add_options(next, with_optional_value, optional_argument);
	add_options(next, without_value, no_argument);
}

/* An option that srun does not have is another plugin's; the next word is taken for its value, unless it looks like
 * an option. */
static void pass_unknown(int count, char **words)
{
	const char *word = words[optind - 1];

	if (!strncmp(word, "--", 2) && !strchr(word, '=') && optind < count && words[optind][0] != '-')
		optind++;
}

static void note(struct words *found, int option, const char *value)
{
	switch (option) {
	case TEMPLATE:
		found->template = value;
		break;
	case VM:
		found->vm = value ? value : "";
		break;
	case NO_VM:
		found->no_vm = true;
		break;
	case NO_SHELL:
		found->no_shell = true;
		break;
	case JOB:
		found->job = value;
		break;
	case TASKS:
	case 'n':
		found->tasks = value;
		break;
	case EXPORT:
		found->exported = value;
		break;
	case BCAST:
		found->bcast = true;
		break;
	case PROGRAMS:
		found->programs = true;
		break;
	case PLACING:
	case 'w':
	case 'x':
	case 'm':
	case 'N':
	case 'F':
	case 'r':
		found->placed = true;
		break;
	}
}

/* Reads the options in front of the command. The last of several equal ones counts. */
void read_words(int count, char **words, struct words *found)
{
	int option = 0, errors = opterr;

	*found = (struct words){ 0 };
	fill_table();
	opterr = optind = 0; /* 0: getopt begins anew, as it will for srun after us */
	while ((option = getopt_long(count, words, is_srun() ? letters : batch_letters, table, NULL)) != -1) {
		if (option == '?')
			pass_unknown(count, words);
		else
			note(found, option, optarg);
	}
	found->command = optind < count ? words[optind] : NULL;
	opterr = errors;
	optind = 0;
}

/* Reads this process's own command line, of any length. The strings found live as long as the process. */
void read_own_words(struct words *found)
{
	enum { PIECE = 256 * 1024 };
	size_t size = 0, count = 0;
	ssize_t more = 1;
	char *line = NULL, **words = NULL;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && more > 0) {
		char *longer = realloc(line, size + PIECE + 1);
		line = longer ? longer : line;
		more = longer ? read(fd, line + size, PIECE) : 0;
		size += more > 0 ? (size_t)more : 0;
	}
	if (fd >= 0)
		close(fd);
	if (line)
		line[size] = '\0';
	for (char *at = line; size && at < line + size; at += strlen(at) + 1)
		count++;
	words = calloc(count + 1, sizeof(*words));
	count = 0;
	for (char *at = line; words && size && at < line + size; at += strlen(at) + 1)
		words[count++] = at;
	if (words)
		read_words((int)count, words, found);
}
