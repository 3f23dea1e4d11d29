/* Is sent real-time signals by a child of its own, as fast as they can be. Says "ready". On SIGTERM the child stops, and
 * this ends with status 0 if each signal that was sent was caught. */
#include "../check.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static volatile long *sent;
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

int main(void) {
    CHECK(malloc(100));
    /* The second word tells the child to stop. */
    sent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(sent != MAP_FAILED);
    struct sigaction counts = {.sa_handler = count}, stops = {.sa_handler = end};
    CHECK(sigaction(SIGRTMIN + 1, &counts, NULL) == 0 && sigaction(SIGTERM, &stops, NULL) == 0);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        while (!sent[1] && getppid() == parent) {
            /* The queue may be full. */
            if (sigqueue(parent, SIGRTMIN + 1, (union sigval){0}) == 0)
                sent[0] = sent[0] + 1;
            else
                CHECK(errno == EAGAIN);
        }
        _exit(0);
    }
    while (caught == 0)
        usleep(1000);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    while (!ends)
        usleep(1000);
    sent[1] = 1;
    while (waitpid(child, NULL, 0) != child)
        CHECK(errno == EINTR);
    return caught == sent[0] ? 0 : 1;
}
