/* What lies idle in the heaps of threads that sleep goes back at a trim, and nothing live is touched meanwhile.
 *
 * usage: sleepers asleep        the threads sleep with holes, free spans, and blocks that others have freed; a trim
 *        sleepers awake         they allocate and free all the while that another thread trims */
#include "work.h"

enum { THREADS = 4, SIZES = 4, BYTES = 16 << 20, KEPT = 64, ROUNDS = 60, TRIMS = 400 };

static const size_t sizes[SIZES] = {400, 2000, 20000, 50000};
static void **blocks[THREADS][SIZES];
static pthread_barrier_t step;
static volatile int over;

static size_t count_of(int kind) { return BYTES / sizes[kind]; }
static unsigned char mark_of(intptr_t thread, size_t i) { return (unsigned char)(1 + (i * 7 + (size_t)thread) % 250); }

/* The thread frees all but one in KEPT, in no order that follows addresses, then another one as many of the rest. */
static bool is_kept(size_t i) { return i % KEPT == 5; }
static bool is_anothers(size_t i) { return i % KEPT > 40; }

static void *sleeper(void *argument) {
    intptr_t me = (intptr_t)argument;
    for (int kind = 0; kind < SIZES; kind++)
        for (size_t i = 0; i < count_of(kind); i++)
            blocks[me][kind][i] = memset(take(sizes[kind]), mark_of(me, i), sizes[kind]);
    for (int kind = 0; kind < SIZES; kind++)
        for (size_t i = 0; i < count_of(kind); i++)
            if (!is_kept(i) && !is_anothers(i)) give(blocks[me][kind][i]);
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step); /* asleep until all is measured */
    for (int kind = 0; kind < SIZES; kind++)
        for (size_t i = 0; i < count_of(kind); i++)
            if (!is_kept(i)) blocks[me][kind][i] = memset(take(sizes[kind]), mark_of(me, i), sizes[kind]);
    for (int kind = 0; kind < SIZES; kind++)
        for (size_t i = 0; i < count_of(kind); i++) {
            CHECK(all_are(blocks[me][kind][i], mark_of(me, i), sizes[kind]));
            give(blocks[me][kind][i]);
        }
    return NULL;
}

static void asleep(void) {
    small_pages_only();
    pthread_t threads[THREADS];
    size_t live = 0, arrays = 0;
    for (int t = 0; t < THREADS; t++)
        for (int kind = 0; kind < SIZES; kind++) {
            blocks[t][kind] = take(count_of(kind) * sizeof(void *));
            memset(blocks[t][kind], 1, count_of(kind) * sizeof(void *));
            arrays += count_of(kind) * sizeof(void *);
        }
    size_t before = resident_bytes();
    pthread_barrier_init(&step, NULL, THREADS + 1);
    for (intptr_t t = 0; t < THREADS; t++) threads[t] = thread_start(sleeper, (void *)t);
    pthread_barrier_wait(&step);
    for (int t = 0; t < THREADS; t++)
        for (int kind = 0; kind < SIZES; kind++)
            for (size_t i = 0; i < count_of(kind); i++) {
                if (is_anothers(i)) give(blocks[t][kind][i]);
                /* A block keeps its pages. */
                if (is_kept(i)) live += (sizes[kind] + 2 * PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
            }
    malloc_trim(0);
    size_t held = resident_bytes() - before, most = live + (THREADS + 1) * MIB + MIB / 2;
    if (held > most) dprintf(STDERR_FILENO, "%zu KiB stay, %zu at most\n", held / KIB, most / KIB);
    CHECK(held <= most);
    struct slabside_stats now = figures();
    CHECK(now.holes > 0 && arrays > 0);
    for (int t = 0; t < THREADS; t++)
        for (int kind = 0; kind < SIZES; kind++)
            for (size_t i = 0; i < count_of(kind); i++)
                if (is_kept(i)) CHECK(all_are(blocks[t][kind][i], mark_of(t, i), sizes[kind]));
    pthread_barrier_wait(&step);
    for (int t = 0; t < THREADS; t++) thread_end(threads[t]);
}

/* A ring of blocks of all sizes, each replaced at random, with what it holds looked at before. */
static void *worker(void *argument) {
    enum { HELD = 4000 };
    static void *held[THREADS][HELD];
    static unsigned short size[THREADS][HELD];
    intptr_t me = (intptr_t)argument;
    uint64_t state = (uint64_t)me + 99;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < HELD; i++) {
            size_t at = random_next(&state) % HELD;
            if (held[me][at] != NULL) CHECK(all_are(held[me][at], mark_of(me, at), size[me][at]));
            give(held[me][at]);
            held[me][at] = NULL;
            if (random_next(&state) % 4 == 0) continue;
            size[me][at] = (unsigned short)(random_next(&state) % (random_next(&state) % 8 ? 3000 : 40000) + 1);
            held[me][at] = memset(take(size[me][at]), mark_of(me, at), size[me][at]);
        }
        if (random_next(&state) % 2) wait_ms(1);
    }
    for (int i = 0; i < HELD; i++) {
        if (held[me][i] != NULL) CHECK(all_are(held[me][i], mark_of(me, i), size[me][i]));
        give(held[me][i]);
    }
    return NULL;
}

static void *trimmer(void *unused) {
    for (int i = 0; i < TRIMS && !over; i++) malloc_trim(0), wait_ms(1);
    return unused;
}

static void awake(void) {
    pthread_t threads[THREADS], trims = thread_start(trimmer, NULL);
    for (intptr_t t = 0; t < THREADS; t++) threads[t] = thread_start(worker, (void *)t);
    for (int t = 0; t < THREADS; t++) thread_end(threads[t]);
    over = 1;
    thread_end(trims);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "asleep") == 0) asleep();
    else awake();
    sound();
    return 0;
}
