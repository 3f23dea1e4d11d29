/* usage: last_round COUNT - threads, one after another, whose first allocation comes in the last round of
 * thread-specific destructors, where no hook of the allocator's runs any more: their heaps are not lost. */
#include "../tools.h"

#include <limits.h>
#include <pthread.h>

static pthread_key_t key;

static void destructor(void *round) {
    if ((uintptr_t)round < PTHREAD_DESTRUCTOR_ITERATIONS) {
        CHECK(pthread_setspecific(key, (char *)round + 1) == 0);
        return;
    }
    for (size_t size = 16; size <= 2048; size *= 2) {
        void *block = take(size);
        CHECK(block != NULL);
        memset(block, 1, size);
        if (size != 64) give(block);
    }
    give(take(40000));
}

static void *run(void *unused) {
    CHECK(pthread_setspecific(key, (void *)1) == 0);
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    small_pages_only();
    int count = atoi(argv[1]);
    CHECK(pthread_key_create(&key, destructor) == 0);
    size_t warm = 0;
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        if (i == 100) warm = resident_bytes();
    }
    size_t now = resident_bytes();
    if (now > warm + 2 * MIB) dprintf(STDERR_FILENO, "%zu KiB grew to %zu\n", warm / KIB, now / KIB);
    CHECK(now <= warm + 2 * MIB);
    sound();
    return 0;
}
