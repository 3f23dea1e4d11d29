/* usage: overlap local|remote - two threads free the same objects at the same moment, one of them the owner
 * or neither: found at the latest when the owner collects. Whoever survives exits 3. */
#include "tools.h"

#include <pthread.h>
#include <stdatomic.h>

enum { OBJECTS = 1000 };
static void *object[OBJECTS];
static atomic_int arrived;

/* Both leave at the same moment, or nearly. */
static void meet(int round) {
    atomic_fetch_add(&arrived, 1);
    for (long spins = 0; atomic_load(&arrived) < 2 * round; spins++)
        if (spins > 1000) sched_yield();
}

static void *free_all(void *unused) {
    for (int i = 0; i < OBJECTS; i++) {
        meet(i + 1);
        give(object[i]);
    }
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t threads[2];
    bool local = strcmp(argv[1], "local") == 0;
    for (int i = 0; i < OBJECTS; i++) object[i] = take(48);
    for (int i = local; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, free_all, NULL) == 0);
    if (local) free_all(NULL);
    for (int i = local; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 3 * OBJECTS; i++) CHECK(take(48) != NULL);
    return 3;
}
