/* A program forks at the very moment when its second thread allocates for the first time: half of what
 * makes it a program with threads has happened, and the child must be able to start threads none the less.
 * One process has one such moment, so the program starts itself again for each attempt.
 *
 * usage: first ATTEMPTS | first once DELAY */
#include "children.h"

#include <spawn.h>

extern char **environ;

static atomic_int go;

static void *allocate(void *unused) {
    (void)unused;
    block_end(block_new(100, 2));
    block_end(block_new(40000, 2));
    return NULL;
}

static void *allocate_when_told(void *unused) {
    while (!atomic_load(&go)) continue;
    return allocate(unused);
}

static int once(int delay) {
    struct block *own = block_new(100, 2);
    pthread_t thread = thread_start(allocate_when_told, NULL);
    atomic_store(&go, 1);
    for (volatile int i = 0; i < delay; i++) continue;
    pid_t child = child_start();
    if (child == 0) {
        block_end(own);
        thread_end(thread_start(allocate, NULL));
        sound();
        exit(0);
    }
    child_end(child);
    thread_end(thread);
    block_end(own);
    sound();
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (argc == 3) return once(atoi(argv[2]));
    for (int i = 0; i < atoi(argv[1]); i++) {
        char delay[16];
        snprintf(delay, sizeof delay, "%d", i * 37 % 4000);
        char *arguments[] = {argv[0], "once", delay, NULL};
        pid_t attempt;
        CHECK(posix_spawn(&attempt, "/proc/self/exe", NULL, NULL, arguments, environ) == 0);
        child_end(attempt);
    }
    return 0;
}
