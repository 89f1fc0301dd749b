/* Strings that grow, and error messages for the user. */
#include "pcocc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void text_add(struct text *text, const char *format, ...)
{
	for (;;) {
		va_list words;
		va_start(words, format);
		size_t room = text->size - text->length;
		int wanted = vsnprintf(text->data ? text->data + text->length : NULL, room, format, words);
		va_end(words);
		if (wanted < 0)
			abort();
		if (text->data && (size_t)wanted < room) {
			text->length += (size_t)wanted;
			return;
		}
		text->size = (text->length + (size_t)wanted + 1) * 2;
		text->data = realloc(text->data, text->size);
		if (!text->data)
			abort(); /* as Slurm's xmalloc does */
	}
}

/* Writes `pcocc: error: ...` and a hint to stderr: the user's terminal, or in a step the task's stderr. */
void complain(const char *hint, const char *format, ...)
{
	struct text text = { 0 };
	char message[1024];
	va_list words;

	va_start(words, format);
	vsnprintf(message, sizeof(message), format, words);
	va_end(words);
	text_add(&text, "pcocc: error: %s\n", message);
	if (hint)
		text_add(&text, "hint: %s\n", hint);
	ssize_t ignored = write(STDERR_FILENO, text.data, text.length);
	(void)ignored;
	free(text.data);
}

/* Returns the value in the line `key value` of a text, or NULL. */
const char *find_line(const char *lines, const char *key, size_t *length)
{
	size_t width = strlen(key);

	while (lines && *lines) {
		const char *end = strchrnul(lines, '\n');
		if (!strncmp(lines, key, width) && lines[width] == ' ') {
			*length = (size_t)(end - lines) - width - 1;
			return lines + width + 1;
		}
		lines = *end ? end + 1 : end;
	}
	return NULL;
}
