/* A tree of forks: each generation forks with a thread of its own at work, frees what its ancestors
 * allocated and hands down blocks of its own.
 *
 * usage: nested DEPTH */
#include "children.h"

enum { SLOTS = 256, FORKS = 2, STEPS = 500 };

static slot slots[SLOTS];

static void churn(uint64_t seed) {
    uint64_t state = 0x9e3779b97f4a7c15u * (seed + 1);
    for (int i = 0; i < STEPS; i++)
        block_end(atomic_exchange(&slots[random_next(&state) % SLOTS], block_new(random_size(&state), random_next(&state))));
}

static void *churn_aside(void *argument) {
    churn((uintptr_t)argument);
    return NULL;
}

static void generation(long depth) {
    pid_t children[FORKS];
    pthread_t aside = thread_start(churn_aside, (void *)(depth + 50));
    churn((uint64_t)depth);
    for (int i = 0; depth > 0 && i < FORKS; i++) {
        children[i] = child_start();
        if (children[i] == 0) {
            generation(depth - 1);
            slots_end(slots, SLOTS);
            sound();
            exit(0);
        }
        churn((uint64_t)(depth * FORKS + i));
    }
    thread_end(aside);
    for (int i = 0; depth > 0 && i < FORKS; i++) child_end(children[i]);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    generation(atol(argv[1]));
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
