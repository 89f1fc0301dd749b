/* What a guest's CPUs and memory give a program: `kernels stream THREADS MIB` prints MB/s of STREAM's triad (best of five),
 * `kernels lu N` Mflop/s of an LU factorization with partial pivoting, which is what HPL does, of N x N numbers. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double *a, *b, *c;
static size_t each;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *touch(void *number)
{
	for (size_t i = (size_t)number * each; i < ((size_t)number + 1) * each; i++)
		a[i] = 0, b[i] = 1, c[i] = 2; /* where a thread touches memory first, there it lies */
	return NULL;
}

static void *triad(void *number)
{
	for (size_t i = (size_t)number * each; i < ((size_t)number + 1) * each; i++)
		a[i] = b[i] + 3 * c[i];
	return NULL;
}

static double together(void *(*work)(void *), size_t threads)
{
	pthread_t all[threads];
	double begin = now();
	for (size_t i = 0; i < threads; i++)
		if (pthread_create(&all[i], NULL, work, (void *)i))
			exit(1);
	for (size_t i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	return now() - begin;
}

static int stream(size_t threads, size_t mebibytes)
{
	double best = INFINITY;
	each = (mebibytes << 20) / sizeof(double) / 3 / threads;
	a = malloc(each * threads * sizeof *a);
	b = malloc(each * threads * sizeof *b);
	c = malloc(each * threads * sizeof *c);
	if (!a || !b || !c)
		return 1;
	together(touch, threads);
	for (int round = 0; round < 5; round++)
		best = fmin(best, together(triad, threads));
	printf("%.1f\n", 3 * each * threads * sizeof(double) / best / 1e6);
	return a[0] != 7; /* 1 + 3 * 2 */
}

static int lu(size_t n)
{
	double *m = malloc(n * n * sizeof *m), *row = malloc(n * sizeof *row);
	if (!m || !row)
		return 1;
	srand(1);
	for (size_t i = 0; i < n * n; i++)
		m[i] = rand() / (double)RAND_MAX - 0.5;
	double begin = now();
	for (size_t k = 0; k < n; k++) {
		size_t pivot = k;
		for (size_t i = k + 1; i < n; i++)
			if (fabs(m[i * n + k]) > fabs(m[pivot * n + k]))
				pivot = i;
		memcpy(row, m + k * n, n * sizeof *row);
		memmove(m + k * n, m + pivot * n, n * sizeof *row);
		memcpy(m + pivot * n, row, n * sizeof *row);
		for (size_t i = k + 1; i < n; i++) {
			double f = m[i * n + k] /= m[k * n + k];
			for (size_t j = k + 1; j < n; j++)
				m[i * n + j] -= f * m[k * n + j];
		}
	}
	printf("%.1f\n", 2.0 / 3 * n * n * n / (now() - begin) / 1e6);
	return !isfinite(m[n * n - 1]);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "stream"))
		return stream(atoi(argv[2]), atoi(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "lu"))
		return lu(atoi(argv[2]));
	return fprintf(stderr, "usage: kernels stream THREADS MIB | lu N\n"), 2;
}
