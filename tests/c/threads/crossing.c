/* Threads replace each other's blocks at random, while the thread that made them all waits. How much is live stays
 * as it is, and so does how much is resident, but for a bounded part.
 *
 * usage: crossing THREADS [sleeper]: the last thread sleeps now and then */
#include "work.h"

enum { BLOCKS = 300000, REPLACED = 8 * BLOCKS, MOST = 8, NAP = 50000 };

static _Atomic(char *) table[BLOCKS];
static int threads, sleeper = -1;

static char *fresh(uint64_t *random) {
    static const unsigned char sizes[] = {16, 24, 32, 32, 48, 48, 64, 64, 64, 80, 96, 112, 128, 160, 200, 250};
    unsigned char size = sizes[random_next(random) % 16];
    char *block = malloc(size);
    CHECK(block != NULL);
    memset(block, (char)size, size);
    return block;
}

static void end(char *block) {
    unsigned char size = (unsigned char)block[0];
    CHECK(all_are(block, size, size));
    free(block);
}

static void *replace(void *argument) {
    intptr_t me = (intptr_t)argument;
    uint64_t random = 12345 + 67890 * (uint64_t)me;
    for (int i = 0; i < REPLACED / threads; i++) {
        end(atomic_exchange(&table[random_next(&random) % BLOCKS], fresh(&random)));
        if (me == sleeper && i % NAP == 0) wait_ms(50);
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    threads = atoi(argv[1]);
    CHECK(threads >= 1 && threads <= MOST);
    if (argc > 2) sleeper = threads - 1;
    small_pages_only();
    uint64_t random = 88172645463325252;
    for (int i = 0; i < BLOCKS; i++) table[i] = fresh(&random);
    size_t before = resident_bytes();
    pthread_t all[MOST];
    for (intptr_t i = 0; i < threads; i++) all[i] = thread_start(replace, (void *)i);
    for (int i = 0; i < threads; i++) thread_end(all[i]);
    size_t after = resident_bytes();
    CHECK(after <= before + before * 3 / 10);
    for (int i = 0; i < BLOCKS; i++) end(table[i]);
    sound();
    return 0;
}
