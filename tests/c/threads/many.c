/* A thousand threads alive at once, each with a few small objects: what a thread costs is bounded.
 *
 * usage: many THREADS MEGABYTES */
#include "work.h"

enum { MOST = 4000, OBJECTS = 50 };

static pthread_barrier_t all_hold, may_free;

static void *hold(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    struct block *own[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) own[i] = block_new(16 + random_next(&state) % 240, random_next(&state));
    pthread_barrier_wait(&all_hold);
    pthread_barrier_wait(&may_free);
    for (int i = 0; i < OBJECTS; i++) block_end(own[i]);
    return NULL;
}

int main(int argc, char **argv) {
    static pthread_t threads[MOST];
    CHECK(argc == 3);
    unsigned count = (unsigned)atoi(argv[1]);
    size_t limit = (size_t)atol(argv[2]) << 20;
    CHECK(count <= MOST);
    CHECK(pthread_barrier_init(&all_hold, NULL, count + 1) == 0);
    CHECK(pthread_barrier_init(&may_free, NULL, count + 1) == 0);
    for (uintptr_t i = 0; i < count; i++) threads[i] = thread_start(hold, (void *)i);
    pthread_barrier_wait(&all_hold);
    size_t held = resident_bytes();
    pthread_barrier_wait(&may_free);
    for (unsigned i = 0; i < count; i++) thread_end(threads[i]);
    printf("%zu KiB resident\n", held / 1024);
    CHECK(held < limit);
    sound();
    return 0;
}
