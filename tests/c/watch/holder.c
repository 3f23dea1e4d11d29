/* Allocates and frees at random, in several threads that also free each other's, tells in a file what it holds, and
 * waits: to be read from outside.
 *
 * holder SEED OPERATIONS THREADS FILE [crash]
 *
 * The file has lines `small BYTES`, `large BYTES`: what the allocator counts itself; `own BYTES` of them it counted
 * before; `block ADDRESS BYTES`: what is held and how much of each may be used. With `crash` it ends by a wild store
 * instead of waiting. */
#include "../check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#ifdef PREFIXED
#define mallinfo2 slabside_mallinfo2
#define malloc_usable_size slabside_usable_size
#endif

enum { HELD = 3000, THREADS = 8 };

struct table {
    void *held[HELD];
    uint64_t state;
    long operations;
};

static struct table tables[THREADS];
static pthread_barrier_t filled, thinned;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t size_of(uint64_t r) {
    switch (r % 64) {
    case 0: return 130000 + r / 64 % 400000;
    case 1: case 2: return 8193 + r / 64 % 100000;
    case 3: case 4: case 5: case 6: return 1025 + r / 64 % 7000;
    case 7: return 1 + r / 64 % 8;
    default: return 1 + r / 64 % 600;
    }
}

static void *fill(void *argument) {
    struct table *table = argument;
    for (long i = 0; i < table->operations; i++) {
        uint64_t r = next(&table->state);
        void **place = &table->held[r % HELD];
        if (*place) {
            free(*place);
            *place = NULL;
        } else {
            size_t size = size_of(r >> 16);
            CHECK(*place = malloc(size));
            memset(*place, (int)r, size < 64 ? size : 64);
        }
    }
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&thinned);
    for (;;)
        pause();
    return NULL;
}

/* Allocates nothing, as dprintf would: what was told is to stay true. */
static void line(int file, const char *form, size_t a, size_t b) {
    char text[80];
    int n = snprintf(text, sizeof text, form, a, b);
    CHECK(write(file, text, n) == n);
}

static void tell(int file, size_t own) {
    struct mallinfo2 now = mallinfo2();
    line(file, "small %zu\nlarge %zu\n", now.uordblks, now.hblkhd);
    line(file, "own %zu\n", own, 0);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < HELD; i++)
            if (tables[t].held[i])
                line(file, "block %zx %zu\n", (size_t)tables[t].held[i],
                     malloc_usable_size(tables[t].held[i]));
}

int main(int argc, char **argv) {
    CHECK(argc >= 5);
    uint64_t seed = strtoull(argv[1], NULL, 10) * 2654435761u + 1;
    int threads = atoi(argv[3]);
    CHECK(threads >= 1 && threads <= THREADS);
    pthread_barrier_init(&filled, NULL, threads);
    pthread_barrier_init(&thinned, NULL, threads);
    pthread_t thread;
    for (int t = 1; t < threads; t++) {
        tables[t].state = seed + 77 * t;
        tables[t].operations = atol(argv[2]);
        CHECK(pthread_create(&thread, NULL, fill, &tables[t]) == 0);
    }
    struct mallinfo2 before = mallinfo2();
    tables[0].state = seed;
    tables[0].operations = atol(argv[2]);
    for (long i = 0; i < tables[0].operations; i++) {
        uint64_t r = next(&tables[0].state);
        void **place = &tables[0].held[r % HELD];
        if (*place) {
            free(*place);
            *place = NULL;
        } else {
            CHECK(*place = malloc(size_of(r >> 16)));
        }
    }
    pthread_barrier_wait(&filled);
    /* What the others hold, and do not collect. */
    for (int t = 1; t < threads; t++)
        for (int i = 0; i < HELD; i += 3) {
            free(tables[t].held[i]);
            tables[t].held[i] = NULL;
        }
    pthread_barrier_wait(&thinned);
    int file = open(argv[4], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0);
    tell(file, threads == 1 ? before.uordblks : 0);
    close(file);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    if (argc > 5) {
        for (int i = 0; i < HELD; i++)
            if (tables[0].held[i])
                *(volatile char **)NULL = tables[0].held[i];
    }
    for (;;)
        pause();
}
