/* Holds some blocks and says "ready". At SIGUSR1 it holds 4,000 of 1,000 bytes more, and calls itself "grown". With
 * "steadily" it holds some more every 5 ms for as long as it runs.
 *
 * grower [steadily] */
#include "../tools.h"

#include <signal.h>

static volatile sig_atomic_t wanted;

static void want(int number) {
    (void)number;
    wanted = 1;
}

__attribute__((noipa)) void hold(void) {
    for (int i = 0; i < 4000; i++) CHECK(take(500));
}

__attribute__((noipa)) void grow(int blocks) {
    for (int i = 0; i < blocks; i++) CHECK(take(1000));
}

int main(int argc, char **argv) {
    (void)argv;
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &blocked, &open) == 0);
    struct sigaction action = {.sa_handler = want};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    hold();
    puts("ready");
    fflush(stdout);
    while (argc > 1) {
        grow(5);
        CHECK(nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL) == 0);
    }
    while (!wanted) sigsuspend(&open);
    grow(4000);
    CHECK(prctl(PR_SET_NAME, "grown") == 0);
    for (;;) pause();
}
