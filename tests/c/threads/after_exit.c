/* Two threads free a third one's blocks while it allocates, while it exits and after it has gone; its
 * slabs must come back into use whichever way the race goes.
 *
 * usage: after_exit ROUNDS */
#include "work.h"

enum { BLOCKS = 1500 };

static slot blocks[BLOCKS];
static uint64_t round_number;

static void *produce(void *unused) {
    (void)unused;
    uint64_t state = 0x9e3779b97f4a7c15u * (round_number + 1);
    for (int i = 0; i < BLOCKS; i++) {
        struct block *fresh = block_new(16 + random_next(&state) % 400, random_next(&state));
        CHECK(atomic_exchange(&blocks[i], fresh) == NULL);
    }
    return NULL; /* at once: the last blocks are freed while this thread goes */
}

/* Frees every second block, beginning with `argument`; leaves the last hundred to the main thread. */
static void *consume(void *argument) {
    for (int i = (int)(intptr_t)argument; i < BLOCKS - 100; i += 2) {
        struct block *b;
        while ((b = atomic_exchange(&blocks[i], NULL)) == NULL) sched_yield();
        block_end(b);
    }
    return NULL;
}

static void play(uint64_t number) {
    round_number = number;
    pthread_t producer = thread_start(produce, NULL);
    pthread_t even = thread_start(consume, (void *)0), odd = thread_start(consume, (void *)1);
    thread_end(producer);
    thread_end(even);
    thread_end(odd);
    slots_end(blocks, BLOCKS); /* the owner has gone for certain */
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    uint64_t rounds = (uint64_t)atol(argv[1]), warm = rounds / 5, i;
    for (i = 0; i < warm; i++) play(i);
    size_t before = resident_bytes();
    for (; i < rounds; i++) play(i);
    CHECK(resident_bytes() < before + 2 * MIB);
    sound();
    return 0;
}
