/* Two threads allocate, then each forks a child that waits: one that allocates first, and one that does not. Says
 * "ready" when both children are there; they end with it. */
#include "../check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

static int ends[2];

static void child(int allocates) {
    if (fork() != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (allocates)
        for (int i = 0; i < 1000; i++)
            CHECK(malloc(100));
    CHECK(write(ends[1], "x", 1) == 1);
    for (;;)
        pause();
}

static void *other(void *argument) {
    (void)argument;
    CHECK(malloc(100));
    child(1);
    for (;;)
        pause();
}

int main(void) {
    char byte;
    CHECK(pipe(ends) == 0);
    CHECK(malloc(100));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    CHECK(read(ends[0], &byte, 1) == 1);
    child(0);
    CHECK(read(ends[0], &byte, 1) == 1);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}
