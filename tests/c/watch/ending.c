/* Gets 200 signals, loses 5 blocks of 120 bytes that lead to one of 250 each, and ends with status 7, or by a signal.
 *
 * ending [killed] */
#include "../check.h"

#include <signal.h>

static void *volatile kept;
static volatile sig_atomic_t caught;

static void count(int number) {
    (void)number;
    caught++;
}

/* Not inlined: what it leaves behind lies below its caller's frame. */
__attribute__((noinline)) static void lose(void) {
    for (int i = 0; i < 5; i++) {
        void *volatile *first = malloc(120);
        CHECK(first);
        first[0] = malloc(250);
    }
    kept = malloc(1000);
}

/* Nor this: it clears what others left on the stack. */
__attribute__((noinline)) static void wipe(void) {
    volatile char room[64 << 10];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

int main(int argc, char **argv) {
    (void)argv;
    struct sigaction action = {.sa_handler = count};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGRTMIN + 1, &action, NULL) == 0);
    for (int i = 0; i < 100; i++)
        CHECK(raise(SIGUSR1) == 0 && raise(SIGRTMIN + 1) == 0);
    CHECK(caught == 200);
    lose();
    wipe();
    if (argc > 1)
        raise(SIGTERM);
    return 7;
}
