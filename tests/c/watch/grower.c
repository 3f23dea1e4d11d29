/* Holds some blocks and says "ready". At SIGUSR1 it holds 4,000 of 1,000 bytes more, and calls itself "grown". */
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

__attribute__((noipa)) void grow(void) {
    for (int i = 0; i < 4000; i++) CHECK(take(1000));
}

int main(void) {
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &blocked, &open) == 0);
    struct sigaction action = {.sa_handler = want};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    hold();
    puts("ready");
    fflush(stdout);
    while (!wanted) sigsuspend(&open);
    grow();
    CHECK(prctl(PR_SET_NAME, "grown") == 0);
    for (;;) pause();
}
