/* What a thread costs beside its blocks: at most 64 KiB resident, until it uses more than a dozen size classes. */
#include "work.h"

enum { THREADS = 64, CLASSES = 12, COST = 64 * KIB };

static pthread_barrier_t started, allocated, measured;

static void *use_a_dozen_classes(void *argument) {
    void *blocks[CLASSES];
    (void)argument;
    pthread_barrier_wait(&started);
    pthread_barrier_wait(&started); /* what threads without blocks cost was looked at */
    for (int i = 0; i < CLASSES; i++) blocks[i] = memset(take(16 + 16 * i), 1, 16);
    pthread_barrier_wait(&allocated);
    pthread_barrier_wait(&measured);
    for (int i = 0; i < CLASSES; i++) give(blocks[i]);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    small_pages_only();
    CHECK(pthread_barrier_init(&started, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&allocated, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&measured, NULL, THREADS + 1) == 0);
    give(take(100));
    for (int i = 0; i < THREADS; i++) threads[i] = thread_start(use_a_dozen_classes, NULL);
    pthread_barrier_wait(&started);
    size_t before = resident_bytes();
    pthread_barrier_wait(&started);
    pthread_barrier_wait(&allocated);
    size_t each = (resident_bytes() - before) / THREADS;
    dprintf(STDOUT_FILENO, "%zu bytes a thread\n", each);
    pthread_barrier_wait(&measured);
    for (int i = 0; i < THREADS; i++) thread_end(threads[i]);
    CHECK(each > 0 && each <= COST);
    sound();
    return 0;
}
