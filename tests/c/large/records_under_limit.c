/* Under a limit of 64 MiB of address space: blocks that were large and were shrunk to a page, and blocks with an
 * alignment that only a mapping has, are thousands, not as many as a small table of records holds. */
#include "../tools.h"

#include <sys/resource.h>

enum { MOST = 20000 };
static void *block[MOST];

static int shrunk(void) {
    int count = 0;
    for (void *large; count < MOST && (large = take(200000)) != NULL; count++) {
        CHECK((block[count] = resize(large, 4096)) != NULL);
        *(int *)block[count] = count;
    }
    return count;
}

static int aligned(void) {
    int count = 0;
    while (count < MOST && posix_memalign(&block[count], 256 * KIB, 4096) == 0) {
        *(int *)block[count] = count;
        count++;
    }
    return count;
}

int main(void) {
    struct rlimit limit = {64 * MIB, 64 * MIB};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    int (*const ways[])(void) = {shrunk, aligned};
    for (int way = 0; way < 2; way++) {
        int count = ways[way]();
        CHECK(count >= (way == 0 ? 8000 : 100));
        for (int i = 0; i < count; i++) CHECK(*(int *)block[i] == i);
        for (int i = 0; i < count; i++) give(block[i]);
    }
    sound();
    return 0;
}
