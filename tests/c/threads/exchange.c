/* Threads, more than there are cores, allocate, hand on through shared slots, verify and free what
 * others allocated. Every slab sees local frees, remote frees and collections at the same time.
 *
 * usage: exchange THREADS STEPS */
#include "work.h"

enum { SLOTS = 2048, OWN = 64 };

static slot slots[SLOTS];
static long steps;

static void *churn(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    struct block *own[OWN] = {0};
    for (long i = 0; i < steps; i++) {
        struct block *fresh = block_new(random_size(&state), random_next(&state));
        uint64_t pick = random_next(&state);
        if (pick % 4 == 0) { /* a local life: freed by the thread that allocated it */
            struct block **place = &own[pick / 4 % OWN];
            block_end(*place);
            *place = fresh;
        } else {
            block_end(atomic_exchange(&slots[pick / 4 % SLOTS], fresh));
        }
    }
    for (int i = 0; i < OWN; i++) block_end(own[i]);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int count = atoi(argv[1]);
    steps = atol(argv[2]);
    pthread_t threads[64];
    CHECK(count > 0 && count <= 64);
    for (long i = 0; i < count; i++) threads[i] = thread_start(churn, (void *)i);
    for (int i = 0; i < count; i++) thread_end(threads[i]);
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
