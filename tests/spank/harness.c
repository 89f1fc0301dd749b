/* Calls the plugin's embed_check as srun would, and prints what it answers. */
#include "../../spank/client.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	static char answer[512 * 1024];
	int result = embed_check(argc > 1 ? argv[1] : "{}", answer, sizeof(answer));

	printf("%d\n%s", result, answer);
	return 0;
}
