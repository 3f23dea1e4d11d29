/* Holds BLOCKS blocks of 88 bytes and replaces them, a part of a second at a time, to be watched meanwhile. Loses LOST
 * blocks of 112 bytes first.
 *
 * target BLOCKS PACE [LOST]
 *
 * PACE is how many millions of blocks it replaces a second at most; 0: as many as it can. Each line that it prints is how
 * many it has replaced in half a second of its own processor time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 88, STEP = 20000 };

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4)
        return 2;
    for (int lost = argc == 4 ? atoi(argv[3]) : 0; lost > 0; lost--)
        *(volatile uint64_t *)malloc(112) = lost;
    long blocks = atol(argv[1]);
    double pace = atof(argv[2]) * 1e6;
    void **held = malloc(blocks * sizeof *held);
    uint64_t state = 88172645463325252u;
    for (long i = 0; i < blocks; i++)
        *(uint64_t *)(held[i] = malloc(SIZE)) = i;
    puts("ready");
    fflush(stdout);
    for (double wall = seconds(CLOCK_MONOTONIC), done = 0;;) {
        double start = seconds(CLOCK_PROCESS_CPUTIME_ID), now;
        long count = 0;
        do {
            for (int i = 0; i < STEP; i++) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                void **place = &held[state % blocks];
                free(*place);
                *(uint64_t *)(*place = malloc(SIZE)) = state;
            }
            count += STEP;
            done += STEP;
            while (pace > 0 && done > (seconds(CLOCK_MONOTONIC) - wall) * pace)
                usleep(1000);
            now = seconds(CLOCK_PROCESS_CPUTIME_ID);
        } while (now - start < 0.5);
        printf("%ld\n", count);
        fflush(stdout);
    }
}
