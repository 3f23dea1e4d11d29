/* usage: mixed MOST - after 20 MiB of objects of 1 to MOST bytes were allocated, written and freed in random
 * order, the break stands within 256 KiB of where it was: the active slabs of the many classes do not hold
 * the heap's end. */
#include "tools.h"

enum { MOST_OBJECTS = 20 << 20 >> 5 };
static void *object[MOST_OBJECTS];

int main(int argc, char **argv) {
    CHECK(argc == 2);
    size_t most = strtoul(argv[1], NULL, 10), bytes = 0, count = 0;
    uint64_t state = 88172645463325252u;
    char *start = break_now();
    while (bytes < 20 * MIB) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (state >> 33) % most;
        CHECK(count < MOST_OBJECTS);
        object[count++] = memset(take(size), 0xee, size);
        bytes += size;
    }
    CHECK(break_now() - start >= (ptrdiff_t)(19 * MIB));
    shuffle(object, count, 1);
    for (size_t i = 0; i < count; i++) give(object[i]);
    ptrdiff_t left = break_now() - start;
    if (left > (ptrdiff_t)(256 * KIB)) dprintf(STDERR_FILENO, "%td KiB left\n", left / 1024);
    CHECK(left <= (ptrdiff_t)(256 * KIB));
    sound();
    return 0;
}
