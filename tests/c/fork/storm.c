/* Forks while four threads allocate and free. Every child frees its own objects and its parent's, those
 * of threads that it does not have among them, allocates, and starts threads that do as well.
 *
 * usage: storm FORKS */
#include "children.h"

enum { SLOTS = 1024, THREADS = 4, OWN = 400, STEPS = 3000 };

static slot slots[SLOTS];
static atomic_int over;

static void step(uint64_t *state) {
    block_end(atomic_exchange(&slots[random_next(state) % SLOTS], block_new(random_size(state), random_next(state))));
}

static void *churn(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    while (!atomic_load(&over)) {
        for (int i = 0; i < 200; i++) step(&state);
        if ((uintptr_t)argument % 2 == 0) spans_churn(&state);
    }
    return NULL;
}

static void *churn_briefly(void *argument) {
    uint64_t state = 0xd1b54a32d192ed03u * ((uintptr_t)argument + 1);
    for (int i = 0; i < STEPS / 2; i++) step(&state);
    return NULL;
}

static void live_as_child(struct block **own, long number) {
    uint64_t state = 0x9e3779b97f4a7c15u * (uint64_t)(number + 100);
    for (int i = 0; i < OWN; i += 2) block_end(own[i]); /* the forking thread's */
    pthread_t one = thread_start(churn_briefly, (void *)1);
    for (int i = 0; i < STEPS; i++) step(&state); /* frees what any thread of the parent left */
    pthread_t other = thread_start(churn_briefly, (void *)2);
    thread_end(one);
    thread_end(other);
    for (int i = 1; i < OWN; i += 2) block_end(own[i]);
    slots_end(slots, SLOTS);
    sound();
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long forks = atol(argv[1]);
    uint64_t state = 88172645463325252u;
    struct block *own[OWN];
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) threads[i] = thread_start(churn, (void *)i);
    for (int i = 0; i < OWN; i++) own[i] = block_new(random_size(&state), random_next(&state));
    for (long i = 0; i < forks; i++) {
        pid_t child = child_start();
        if (child == 0) {
            live_as_child(own, i);
            exit(0);
        }
        for (int k = 0; k < 20; k++) step(&state);
        child_end(child);
    }
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) thread_end(threads[i]);
    for (int i = 0; i < OWN; i++) block_end(own[i]);
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
