/* Blocks that wait in a quarantine are not live: in no figure that the program can ask for, and at its end. Prints how many
 * bytes wait then. */
#include "../tools.h"

#include <malloc.h>
#include <stdio.h>

enum { COUNT = 600, SIZE = 5000, SLOT = 5120, SPAN = 100000, SPANS = 5 };
static void *block[COUNT], *span[SPANS];

/* What mallinfo2 says. */
static size_t in_use(void) {
#ifdef PREFIXED
    return slabside_mallinfo2().uordblks;
#else
    return mallinfo2().uordblks;
#endif
}

int main(void) {
    static char buffer[256]; /* so that printing allocates nothing */
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    struct slabside_stats start = figures();
    size_t used = in_use();
    for (int i = 0; i < COUNT; i++) block[i] = take(SIZE);
    for (int i = 0; i < SPANS; i++) span[i] = take(SPAN);
    struct slabside_stats full = figures();
    CHECK(full.quarantine == start.quarantine);
    CHECK(full.live - start.live >= COUNT * SLOT + SPANS * SPAN);
    for (int i = 0; i < COUNT; i++) give(block[i]);
    for (int i = 0; i < SPANS; i++) give(span[i]);
    struct slabside_stats freed = figures();
    CHECK(freed.live == start.live && in_use() == used);
    CHECK(freed.quarantine - full.quarantine == full.live - start.live);
    CHECK(freed.peak >= full.live);
    printf("%zu\n", freed.quarantine);
    return 0;
}
