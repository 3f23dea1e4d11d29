/* usage: decay now|later - frees 8 MiB in the middle of the heap and goes on with little: whether the pages are
 * given back within half a second is the option's doing. */
#include "../tools.h"

enum { COUNT = 8192 };
static char *blocks[COUNT];

int main(int argc, char **argv) {
    CHECK(argc == 2);
    small_pages_only();
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take(1000);
        memset(blocks[i], 1, 1000);
    }
    char *top = take(1000);
    size_t full = resident_bytes();
    for (int i = 0; i < COUNT - 200; i++) give(blocks[i]);
    for (int i = 0; i < 50; i++) {
        wait_ms(10);
        void *some[40];
        for (int j = 0; j < 40; j++) some[j] = take(3000);
        for (int j = 0; j < 40; j++) give(some[j]);
    }
    size_t rest = resident_bytes();
    if (strcmp(argv[1], "now") == 0) CHECK(rest + 6 * MIB < full);
    else CHECK(rest + 2 * MIB > full);
    give(top);
    return 0;
}
