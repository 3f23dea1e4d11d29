/* Is sent real-time signals by a child of its own, most of the time. Says "ready". On SIGTERM the child stops, and this
 * ends with status 0 if each signal that was sent was caught.
 *
 * The signals come in rounds. The next round waits until the first loop below has gone on, so that handlers never keep it
 * from running: on no machine does the program do nothing but catch signals. */
#include "../check.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { ROUND = 16 };

/* What both processes share. */
static volatile struct {
    long sent;
    long turns; /* of the first process's loop */
    long stop;  /* tells the child to */
} *shared;

static volatile long caught;
static volatile sig_atomic_t ends;

static void count(int number) {
    (void)number;
    caught++;
}

static void end(int number) {
    (void)number;
    ends = 1;
}

static void send_round(pid_t parent) {
    for (int i = 0; i < ROUND; i++) {
        /* The queue may be full. */
        if (sigqueue(parent, SIGRTMIN + 1, (union sigval){0}) == 0) shared->sent++;
        else CHECK(errno == EAGAIN);
    }
}

static void send_rounds(pid_t parent) {
    while (!shared->stop && getppid() == parent) {
        long before = shared->turns;
        send_round(parent);
        while (shared->turns == before && !shared->stop && getppid() == parent) sched_yield();
    }
}

int main(void) {
    CHECK(malloc(100));
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    struct sigaction counts = {.sa_handler = count}, stops = {.sa_handler = end};
    CHECK(sigaction(SIGRTMIN + 1, &counts, NULL) == 0 && sigaction(SIGTERM, &stops, NULL) == 0);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        send_rounds(parent);
        _exit(0);
    }
    while (caught == 0) shared->turns++;
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    while (!ends) {
        shared->turns++;
        usleep(1000);
    }
    shared->stop = 1;
    while (waitpid(child, NULL, 0) != child) CHECK(errno == EINTR);
    return caught == shared->sent ? 0 : 1;
}
