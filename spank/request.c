/* Checks a request before anything is submitted, and puts what the job needs into the job's environment. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_SIZE (512 * 1024)

/* Adds a JSON string, or null. */
static void add_json(struct text *text, const char *value)
{
	if (!value) {
		text_add(text, "null");
		return;
	}
	text_add(text, "\"");
	for (const unsigned char *at = (const unsigned char *)value; *at; at++) {
		if (*at == '"' || *at == '\\')
			text_add(text, "\\%c", *at);
		else if (*at < 0x20)
			text_add(text, "\\u%04x", *at);
		else
			text_add(text, "%c", *at);
	}
	text_add(text, "\"");
}

static char *render_request(void)
{
	struct text text = { 0 };

	text_add(&text, "{\"template\":");
	add_json(&text, options.template);
	text_add(&text, ",\"images\":[");
	for (size_t i = 0; i < options.image_count; i++) {
		text_add(&text, i ? "," : "");
		add_json(&text, options.images[i]);
	}
	text_add(&text, "],\"mounts\":[");
	for (size_t i = 0; i < options.mount_count; i++) {
		text_add(&text, i ? "," : "");
		add_json(&text, options.mounts[i]);
	}
	text_add(&text, "],\"user_data\":");
	add_json(&text, options.user_data);
	text_add(&text, ",\"user_data_force\":%s", options.user_data_force ? "true" : "false");
	text_add(&text, ",\"restart\":");
	add_json(&text, options.restart);
	text_add(&text, ",\"checkpoint\":");
	add_json(&text, options.checkpoint);
	text_add(&text, ",\"vm\":");
	add_json(&text, options.vm);
	text_add(&text, "}");
	return text.data;
}

static char *copy_line(const char *answer, const char *key)
{
	size_t length = 0;
	const char *value = find_line(answer, key, &length);

	return strndup(value ? value : "", value ? length : 0);
}

/* Passes the checked request on, to job_submit and to the job's environment. */
static void publish(spank_t sp, const char *answer)
{
	char *size = NULL;
	char *cluster = copy_line(answer, "cluster"), *template = copy_line(answer, "template");
	char *vms = copy_line(answer, "vms"), *cpus = copy_line(answer, "cpus"), *memory = copy_line(answer, "memory");
	char *exclusive = copy_line(answer, "exclusive"), *sets = copy_line(answer, "sets");

	if (asprintf(&size, "vms=%s;cpus=%s;memory=%s;exclusive=%s;sets=%s", vms, cpus, memory, exclusive, sets) < 0)
		size = strdup("");
	spank_job_control_setenv(sp, JOB_CLUSTER, cluster, 1);
	spank_job_control_setenv(sp, JOB_TEMPLATE, template, 1);
	spank_job_control_setenv(sp, JOB_SIZE, size, 1);
	if (!options.template) /* a restart: its checkpoint names them */
		options.template = strdup(template);
	setenv(ENV_CLUSTER, cluster, 1);
	setenv(ENV_TEMPLATE, template, 1);
	free(cluster);
	free(template);
	free(vms);
	free(cpus);
	free(memory);
	free(exclusive);
	free(sets);
	free(size);
}

/* Shows the user the notes of the check. */
static void tell_notes(const char *answer)
{
	static const char key[] = "note ";

	for (const char *at = answer; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (!strncmp(at, key, sizeof(key) - 1))
			fprintf(stderr, "pcocc: note: %.*s\n", (int)strcspn(at + sizeof(key) - 1, "\n"), at + sizeof(key) - 1);
}

/* Returns true when the request can be met; otherwise the user has been told why not. */
bool check_request(spank_t sp)
{
	char *request = render_request();
	char *answer = calloc(1, ANSWER_SIZE);
	int result = answer ? embed_check(request, answer, ANSWER_SIZE) : CHECK_BROKEN;

	if (result == CHECK_PASSED) {
		tell_notes(answer);
		publish(sp, answer);
	} else if (result == CHECK_REFUSED)
		fprintf(stderr, "%s%s", answer, answer[0] && answer[strlen(answer) - 1] == '\n' ? "" : "\n");
	else
		complain("ask the admins to reinstall the pcocc runtime on this host", "the request cannot be checked here: %s",
			 answer && answer[0] ? answer : "the embedded Python did not start");
	free(request);
	free(answer);
	return result == CHECK_PASSED;
}
