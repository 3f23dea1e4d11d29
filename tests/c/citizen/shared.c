/* The heap that threads share after their exit hook belongs to none of them: it stays when the thread that used it
 * first has gone, and others' heaps are taken back. */
#include "../tools.h"

#include <limits.h>
#include <pthread.h>

enum { THREADS = 40, LATE = 300, EACH = 20, MINE = 200 };

static pthread_key_t key;
static void *late_blocks[(LATE + 1) * EACH];
static int late_count;
static pthread_barrier_t all_there;
static bool over;

/* Runs again in each round of destructors; in the last one, after the allocator's own, it allocates. */
static void at_exit(void *round) {
    if ((intptr_t)round < PTHREAD_DESTRUCTOR_ITERATIONS) {
        CHECK(pthread_setspecific(key, (void *)((intptr_t)round + 1)) == 0);
        return;
    }
    for (int i = 0; i < EACH; i++) {
        void *block = take(48);
        CHECK(block != NULL);
        late_blocks[late_count++] = memset(block, 0x11, 48);
    }
}

static void *late(void *unused) {
    give(take(48));
    CHECK(pthread_setspecific(key, (void *)1) == 0);
    return unused;
}

static void *work(void *unused) {
    void *mine[MINE];
    for (int i = 0; i < MINE; i++) mine[i] = memset(take(48), 0x22, 48);
    pthread_barrier_wait(&all_there);
    for (int i = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); i = (i + 1) % MINE) {
        CHECK(all_are(mine[i], 0x22, 48));
        give(mine[i]);
        mine[i] = memset(take(48), 0x22, 48);
    }
    for (int i = 0; i < MINE; i++) {
        CHECK(all_are(mine[i], 0x22, 48));
        give(mine[i]);
    }
    return unused;
}

static void run_late(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, late, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(void) {
    pthread_t threads[THREADS];
    give(take(48)); /* the allocator's key comes before ours */
    CHECK(pthread_key_create(&key, at_exit) == 0);
    CHECK(pthread_barrier_init(&all_there, NULL, THREADS + 1) == 0);
    run_late();
    CHECK(late_count == EACH);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    pthread_barrier_wait(&all_there); /* so many heaps at once: those of threads that have gone were looked for */
    for (int i = 0; i < LATE; i++) run_late();
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    sound();
    for (int i = 0; i < late_count; i++) {
        CHECK(all_are(late_blocks[i], 0x11, 48));
        give(late_blocks[i]);
    }
    sound();
    return 0;
}
