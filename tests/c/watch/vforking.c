/* Its first thread waits in vfork(2) for a child that ends at SIGUSR1, and is called "goes on" afterwards. Another thread
 * goes on all the time. Nothing is lost. Says "ready" when the child is there. */
#include "../check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

static volatile int ended;
static void *volatile kept;
static sigset_t wanted;

static void *tick(void *unused) {
    (void)unused;
    while (sigtimedwait(&wanted, NULL, &(struct timespec){.tv_nsec = 1000000}) != SIGUSR1) {}
    ended = 1;
    return NULL;
}

int main(void) {
    CHECK(kept = malloc(1000));
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &wanted, NULL) == 0);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, tick, NULL) == 0);
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
        while (!ended)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        _exit(0);
    }
    CHECK(prctl(PR_SET_NAME, "goes on") == 0);
    for (;;)
        pause();
}
