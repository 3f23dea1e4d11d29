/* Threads in turn that take and free 20 MB each. What they took again and again nobody takes after the last one.
 *
 * usage: turns SIZE */
#include "../threads/work.h"

enum { BYTES = 20000000, TURNS = 20, MOST = 100000, STAY = 4000000 };

static size_t size;
static void *blocks[MOST];

static void *burst(void *argument) {
    size_t count = BYTES / size;
    for (size_t i = 0; i < count; i++) blocks[i] = memset(take(size), 1, size);
    for (size_t i = 0; i < count; i++) give(blocks[i]);
    return argument;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    size = strtoul(argv[1], NULL, 10);
    CHECK(BYTES / size <= MOST);
    small_pages_only();
    give(take(1));
    memset(blocks, 1, sizeof blocks);
    size_t before = resident_bytes();
    for (int i = 0; i < TURNS; i++) thread_end(thread_start(burst, NULL));
    size_t stay = resident_bytes() - before;
    if (stay > STAY) dprintf(STDERR_FILENO, "%zu: %zu bytes stay\n", size, stay);
    CHECK(stay <= STAY);
    sound();
    return 0;
}
