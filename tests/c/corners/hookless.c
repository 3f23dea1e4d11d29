/* Threads whose first allocation comes in the last round of destructors, so that no exit hook runs: all that was kept
 * for them is used again. */
#include "../tools.h"

#include <pthread.h>

static pthread_key_t key;
static void last(void *value) {
    long round = (long)value;
    if (round < 4) {
        pthread_setspecific(key, (void *)(round + 1));
        return;
    }
    for (int i = 0; i < 8; i++) slabside_free(memset(slabside_malloc(4000), 1, 4000));
}
static void *run(void *unused) {
    pthread_setspecific(key, (void *)1);
    return unused;
}

int main(void) {
    CHECK(pthread_key_create(&key, last) == 0);
    slabside_free(slabside_malloc(8));
    struct slabside_stats early = {0};
    for (int i = 1; i <= 1000; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
        pthread_join(thread, NULL);
        if (i == 100) early = figures();
    }
    struct slabside_stats now = figures();
    CHECK(now.metadata <= early.metadata + 64 * KIB);
    CHECK(now.live <= early.live + MIB && now.break_bytes <= early.break_bytes + 4 * MIB);
    sound();
    return 0;
}
