/* A program's own fork handlers allocate and free, in the parent and in the child, while threads do.
 * They are registered before the first allocation, so that in the child they run before any handler
 * of the heap's own.
 *
 * usage: handlers FORKS */
#include "children.h"

enum { SLOTS = 256, THREADS = 3 };

static slot slots[SLOTS];
static struct block *kept;
static atomic_int over, handled;

static void renew(void) {
    block_end(kept);
    kept = block_new(48, 3);
    for (uint32_t size = 8; size < 20000; size = size * 3 / 2) block_end(block_new(size, size));
    atomic_fetch_add(&handled, 1);
}

static void *churn(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    while (!atomic_load(&over)) {
        for (int i = 0; i < 10; i++)
            block_end(atomic_exchange(&slots[random_next(&state) % SLOTS], block_new(random_size(&state), 2)));
        spans_churn(&state);
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long forks = atol(argv[1]);
    CHECK(pthread_atfork(renew, renew, renew) == 0);
    free(malloc(1));
    CHECK(pthread_atfork(renew, renew, renew) == 0);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) threads[i] = thread_start(churn, (void *)i);
    for (long i = 0; i < forks; i++) {
        pid_t child = child_start();
        if (child == 0) {
            CHECK(atomic_load(&handled) == 4 * i + 4);
            slots_end(slots, SLOTS);
            block_end(kept);
            sound();
            exit(0);
        }
        child_end(child);
    }
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) thread_end(threads[i]);
    slots_end(slots, SLOTS);
    block_end(kept);
    sound();
    return 0;
}
