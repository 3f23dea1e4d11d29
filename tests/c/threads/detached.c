/* Detached threads end whenever they end: nobody joins them, and the last ones still allocate while the
 * main thread returns and the program's exit handlers run.
 *
 * usage: detached THREADS */
#include "work.h"

enum { SLOTS = 256, AT_ONCE = 8 };

static slot slots[SLOTS];
static atomic_long ended;

static void live(uint64_t *state) {
    for (int i = 0; i < 100; i++)
        block_end(atomic_exchange(&slots[random_next(state) % SLOTS], block_new(random_size(state), random_next(state))));
}

static void *live_once(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    live(&state);
    atomic_fetch_add(&ended, 1);
    return NULL;
}

static void *live_on(void *argument) {
    uint64_t state = 0xd1b54a32d192ed03u * ((uintptr_t)argument + 1);
    for (;;) live(&state);
    return NULL;
}

static void detach(void *(*run)(void *), long i) {
    CHECK(pthread_detach(thread_start(run, (void *)i)) == 0);
}

static void late(void) {
    uint64_t state = 88172645463325252u;
    live(&state);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long count = atol(argv[1]);
    CHECK(atexit(late) == 0);
    for (long i = 0; i < count; i++) {
        while (i - atomic_load(&ended) >= AT_ONCE) sched_yield();
        detach(live_once, i);
    }
    while (atomic_load(&ended) < count) sched_yield();
    slots_end(slots, SLOTS);
    while (proc_figure("/proc/self/status", "\nThreads:") > 1) wait_ms(1); /* the last ones' exit hooks run */
    sound();
    for (long i = 0; i < 2; i++) detach(live_on, i);
    wait_ms(20);
    return 0;
}
