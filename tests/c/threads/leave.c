/* Threads in turn each leave 1 MB of small objects to the main thread, which frees them once the owner
 * has gone. Resident memory stays under 24 MB throughout.
 *
 * usage: leave THREADS SIZE (0: sizes mixed) */
#include "work.h"

#define LIMIT (24 * MIB)

enum { MOST = (1 << 20) / 16 };

static struct block *left[MOST];
static size_t count;
static uint32_t size;
static uint64_t state = 88172645463325252u;

static void *leave(void *unused) {
    (void)unused;
    count = 0;
    for (size_t bytes = 0; bytes < MIB; count++) {
        uint32_t n = size != 0 ? size : 16 + (uint32_t)(random_next(&state) % 1000);
        left[count] = block_new(n, 2);
        bytes += n;
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    long threads = atol(argv[1]);
    size = (uint32_t)atol(argv[2]);
    for (long i = 0; i < threads; i++) {
        thread_end(thread_start(leave, NULL));
        CHECK(resident_bytes() < LIMIT);
        for (size_t k = 0; k < count; k++) block_end(left[k]);
        CHECK(resident_bytes() < LIMIT);
    }
    sound();
    return 0;
}
