/* The child of a process with threads, made by _Fork(3), which runs no handlers, makes a thread before it comes to a slow
 * path itself. That thread repairs the heap while the first one allocates and frees by fast paths, and goes on with it
 * afterwards.
 *
 * usage: second FORKS */
#include "children.h"

enum { SIZE = 48, KEPT = 30, OLD = 400, THREADS = 3 };

static pthread_barrier_t filled, over;
static struct block *old[OLD], *others[THREADS][OLD];
static atomic_int repaired;

/* Of the parent: rests while it forks. */
static void *fill(void *argument) {
    intptr_t me = (intptr_t)argument;
    for (int i = 0; i < OLD; i++) others[me][i] = block_new(8 + (uint32_t)i * 37, (uint64_t)i);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&over);
    return NULL;
}

static void *repair(void *argument) {
    intptr_t rounds = (intptr_t)argument;
    struct block *mine[OLD];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < OLD; i++) mine[i] = block_new(i % 2 ? SIZE : 8 + (uint32_t)i * 37, (uint64_t)i);
        atomic_store(&repaired, 1);
        for (int i = 0; i < OLD; i++) block_end(mine[i]);
    }
    return NULL;
}

/* Few blocks, now and then: what the thread has cached lasts for them. */
static void stay_on_fast_paths(void) {
    struct block *held[8] = {NULL};
    for (unsigned i = 0, looks = 0; !atomic_load(&repaired); looks++) {
        if (i == KEPT || looks % 5000 != 0) continue;
        block_end(held[i % 8]);
        held[i % 8] = block_new(SIZE, 16 * i + 2);
        i++;
    }
    for (int i = 0; i < 8; i++) block_end(held[i]);
}

static void live_as_child(void) {
    pthread_t thread = thread_start(repair, (void *)3);
    stay_on_fast_paths();
    for (int i = 0; i < OLD; i += 2) block_end(old[i]);
    uint64_t state = 99;
    for (int i = 0; i < 3000; i++) block_end(block_new(random_size(&state), random_next(&state)));
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < OLD; i++) block_end(others[t][i]);
    thread_end(thread);
    for (int i = 1; i < OLD; i += 2) block_end(old[i]);
    thread_end(thread_start(repair, (void *)1));
    sound();
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&filled, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&over, NULL, THREADS + 1) == 0);
    for (intptr_t i = 0; i < THREADS; i++) threads[i] = thread_start(fill, (void *)i);
    pthread_barrier_wait(&filled);
    for (int i = 0; i < OLD; i++) old[i] = block_new(i % 2 ? SIZE : 8 + (uint32_t)i * 37, (uint64_t)i);
    /* The C library keeps the stack of one that has ended, and all that a thread needs with it. */
    thread_end(thread_start(repair, (void *)0));
    atomic_store(&repaired, 0);
    for (int i = atoi(argv[1]); i > 0; i--) {
        /* The next ones of the class come from what is cached. */
        struct block *next[KEPT];
        for (int k = 0; k < KEPT; k++) next[k] = block_new(SIZE, 2);
        for (int k = 0; k < KEPT; k++) block_end(next[k]);
        pid_t child = _Fork();
        CHECK(child >= 0);
        if (child == 0) {
            live_as_child();
            _exit(0);
        }
        child_end(child);
    }
    pthread_barrier_wait(&over);
    for (int i = 0; i < THREADS; i++) thread_end(threads[i]);
    return 0;
}
