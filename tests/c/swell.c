/* A program that swells and shrinks again and again pays for a few such cycles: after that the break stays
 * and the pages too. */
#include "tools.h"

#include <sys/resource.h>

enum { OBJECTS = 20480, CYCLES = 100, LEARNING = 20 };
static void *object[OBJECTS];

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* Returns how often the break was seen to have moved. */
static int cycle(void) {
    int moves = 0;
    char *last = break_now();
    for (int i = 0; i < OBJECTS; i++) {
        object[i] = memset(take(1024), 0xee, 1024);
        moves += break_now() != last;
        last = break_now();
    }
    for (int i = 0; i < OBJECTS; i++) {
        give(object[i]);
        moves += break_now() != last;
        last = break_now();
    }
    return moves;
}

int main(void) {
    int moves = 0;
    for (int i = 0; i < LEARNING; i++) cycle();
    long before = faults();
    for (int i = LEARNING; i < CYCLES; i++) moves += cycle();
    long paid = faults() - before;
    if (moves > 20 || paid > 10240) dprintf(STDERR_FILENO, "%d moves, %ld faults\n", moves, paid);
    CHECK(moves <= 20);
    CHECK(paid <= 2 * OBJECTS / 4); /* two cycles' pages, of the eighty cycles that could have cost them */
    sound();
    return 0;
}
