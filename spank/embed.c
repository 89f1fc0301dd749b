/* Opens the object that embeds Python: in srun, sbatch and salloc only, and only when one of our options was given. */
#include "client.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef int check_function(const char *request, char *answer, size_t size);

/* Starts the interpreter before cffi would, so that it ignores the user's PYTHON* variables and finds our
 * packages, and cffi's own backend. It reads these global variables when it starts. */
static int start_python(void *python)
{
	void (*initialize)(int) = (void (*)(int))dlsym(python, "Py_InitializeEx");
	int (*run)(const char *, void *) = (int (*)(const char *, void *))dlsym(python, "PyRun_SimpleStringFlags");

	static const char *const flags[] = { "Py_IgnoreEnvironmentFlag", "Py_NoUserSiteDirectory", "Py_NoSiteFlag",
					     "Py_DontWriteBytecodeFlag" };

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		int *flag = dlsym(python, flags[i]);
		if (flag)
			*flag = 1;
	}
	if (!initialize || !run)
		return -1;
	initialize(0);
	return run("import sys; sys.path[:] = ['" PCOCC_PYTHON_PATH "', *sys.path, " PCOCC_PYTHON_LIBRARIES "]", NULL);
}

/* With CHECK_PASSED the answer is lines `key value`, with CHECK_REFUSED a text for stderr, with CHECK_BROKEN the
 * reason why the check could not run. */
int embed_check(const char *request, char *answer, size_t size)
{
	/* Slurm opens plugins with local symbols, but Python's C extensions need libpython's symbols to be global
	 * (tried) */
	void *python = dlopen(PCOCC_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL);
	if (!python) {
		snprintf(answer, size, "%s", dlerror());
		return CHECK_BROKEN;
	}
	if (start_python(python)) {
		snprintf(answer, size, PCOCC_LIBPYTHON " did not start");
		return CHECK_BROKEN;
	}
	void *object = dlopen(PCOCC_CLIENT_OBJECT, RTLD_NOW | RTLD_LOCAL);
	check_function *check = object ? (check_function *)dlsym(object, "pcocc_client_check") : NULL;
	if (!check) {
		snprintf(answer, size, "%s", dlerror());
		return CHECK_BROKEN;
	}
	answer[0] = '\0';
	int result = check(request, answer, size);
	return result == CHECK_PASSED || result == CHECK_REFUSED ? result : CHECK_BROKEN;
}
