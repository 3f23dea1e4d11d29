/* Thousands of threads that live briefly, four at a time; each frees what earlier ones left behind and
 * leaves blocks for later ones. What a thread needs of the heap must be used again by the next.
 *
 * usage: short_lived THREADS */
#include "work.h"

enum { SLOTS = 512, AT_ONCE = 4, BLOCKS = 30 };

static slot slots[SLOTS];

static void *live_briefly(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    struct block *own[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) own[i] = block_new(8 + random_next(&state) % 1000, random_next(&state));
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 2 == 0) block_end(own[i]);
        else block_end(atomic_exchange(&slots[random_next(&state) % SLOTS], own[i]));
    }
    return NULL;
}

static void live_all(long from, long until) {
    pthread_t threads[AT_ONCE];
    for (long i = from; i < until; i += AT_ONCE) {
        for (long k = 0; k < AT_ONCE; k++) threads[k] = thread_start(live_briefly, (void *)(i + k));
        for (long k = 0; k < AT_ONCE; k++) thread_end(threads[k]);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long count = atol(argv[1]), warm = count / 5;
    live_all(0, warm);
    size_t before = resident_bytes();
    size_t books = figures().metadata;
    live_all(warm, count);
    CHECK(resident_bytes() < before + 2 * MIB);
    CHECK(figures().metadata <= books + 512 * KIB); /* a thread needs more than 1 KiB of them: they were used again */
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
