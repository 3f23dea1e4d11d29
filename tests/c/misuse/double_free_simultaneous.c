/* attack:     double free by two threads at the same moment
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always: at the latest when the owner collects
 * mechanism:  remote bitmap, compared when it is collected */
#include "misuse.h"

enum { ROUNDS = 1000 };
static void *shared[ROUNDS];
static int arrived;

static void *free_all(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
        for (long n = 0; __atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < 2 * i + 2; n++)
            if (n > 1000) wait_ms(0);
        give(shared[i]);
    }
    return unused;
}

int main(void) {
    pthread_t other;
    for (int i = 0; i < ROUNDS; i++) shared[i] = take(48);
    CHECK(pthread_create(&other, NULL, free_all, NULL) == 0);
    free_all(NULL);
    CHECK(pthread_join(other, NULL) == 0);
    return go_on("it was not found");
}
