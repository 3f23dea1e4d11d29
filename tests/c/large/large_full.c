/* Sixty-four blocks are out in mremap at once, and as many others come meanwhile: the table of records has room for
 * those that come back. mremap is wrapped, so that all are out for certain. */
#include "../tools.h"

#include <pthread.h>
#include <stdatomic.h>

enum { OUT = 64, SIZE = 160 << 10 };

static atomic_int out, back;

void *__real_mremap(void *old, size_t old_size, size_t size, int flags, ...);
void *__wrap_mremap(void *old, size_t old_size, size_t size, int flags, ...) {
    if (!back) {
        out++;
        while (!back) wait_ms(1);
    }
    return __real_mremap(old, old_size, size, flags);
}

static void *grown(void *block) { return resize(block, 4 * SIZE); }

int main(void) {
    static void *block[OUT], *other[OUT];
    pthread_t thread[OUT];
    for (int i = 0; i < OUT; i++) memset(block[i] = take(SIZE), i, SIZE);
    for (int i = 0; i < OUT; i++) CHECK(pthread_create(&thread[i], NULL, grown, block[i]) == 0);
    while (out < OUT) wait_ms(1);
    for (int i = 0; i < OUT; i++) CHECK((other[i] = take(SIZE)) != NULL);
    back = 1;
    for (int i = 0; i < OUT; i++) {
        CHECK(pthread_join(thread[i], &block[i]) == 0);
        CHECK(block[i] != NULL && all_are(block[i], (unsigned char)i, SIZE));
    }
    CHECK(figures().large == 2 * OUT);
    for (int i = 0; i < OUT; i++) give(other[i]);
    for (int i = 0; i < OUT; i++) give(block[i]);
    CHECK(figures().large == 0);
    sound();
    return 0;
}
