/* Has the check of a request answer with the text on standard input, and ends with what becomes of it. */
#include <stdio.h>

#include "../../spank/request.c"

struct options options;

int embed_check(const char *request, char *answer, size_t size)
{
	(void)request;
	answer[fread(answer, 1, size - 1, stdin)] = 0;
	return CHECK_PASSED;
}

spank_err_t spank_job_control_setenv(spank_t sp, const char *name, const char *value, int overwrite)
{
	(void)sp;
	(void)overwrite;
	printf("%s=%s\n", name, value);
	return ESPANK_SUCCESS;
}

spank_context_t spank_context(void)
{
	return S_CTX_LOCAL;
}

int main(void)
{
	return !check_request(NULL);
}
