/* usage: startup ROUNDS PROGRAM [NAME=VALUE...] - starts PROGRAM many times, in turns as it is and with each
 * NAME=VALUE in its environment, and prints the middle of the times between vfork and its end in microseconds, and
 * of the ratios between neighbours. Each is started twice in a row, of which the second counts: a process leaves
 * work to whoever comes next, since the kernel frees part of it later. All on one processor, for the same reason. */
#define _GNU_SOURCE
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20000, KINDS = 8 };
static double taken[KINDS][ROUNDS], ratio[KINDS][ROUNDS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static double start(char *program, char *variable) {
    char *args[] = {program, NULL}, *environment[] = {variable, NULL};
    double begin = now();
    pid_t child;
    int status;
    if (posix_spawn(&child, program, NULL, NULL, args, environment) != 0) exit(125);
    if (waitpid(child, &status, 0) != child || status != 0) exit(126);
    return now() - begin;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

int main(int argc, char **argv) {
    if (argc < 3 || argc - 2 > KINDS) return 2;
    int rounds = atoi(argv[1]), kinds = argc - 2;
    if (rounds < 1 || rounds > ROUNDS) return 2;
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    sched_setaffinity(0, sizeof here, &here);
    for (int round = -20; round < rounds; round++)
        for (int kind = 0; kind < kinds; kind++) {
            char *variable = kind == 0 ? "NOTHING=" : argv[kind + 2];
            start(argv[2], variable);
            double time = start(argv[2], variable);
            if (round < 0) continue; /* the first find cold caches */
            taken[kind][round] = time;
            ratio[kind][round] = time / taken[0][round];
        }
    for (int kind = 0; kind < kinds; kind++)
        printf("%8.1f us  %5.3f  %s\n", middle(taken[kind], rounds), middle(ratio[kind], rounds),
               kind == 0 ? "as it is" : argv[kind + 2]);
    return 0;
}
