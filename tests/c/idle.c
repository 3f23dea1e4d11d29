/* idle SIZE KEEP: 200 MB of blocks of SIZE bytes are freed, all but every KEEP-th (0: all of them), and the
 * program makes no call after that. Beyond the live bytes a tenth of the burst stays at most. */
#include "tools.h"

enum { TOTAL = 200000000 };

int main(int argc, char **argv) {
    CHECK(argc == 3);
    size_t size = strtoul(argv[1], NULL, 10), keep = strtoul(argv[2], NULL, 10), count = TOTAL / size;
    small_pages_only();
    void **block = mmap(NULL, count * sizeof(void *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED);
    size_t live = count * sizeof(void *);
    for (size_t i = 0; i < count; i++) {
        block[i] = take(size);
        CHECK(block[i] != NULL);
        memset(block[i], 1, size);
    }
    CHECK(resident_bytes() > TOTAL);
    for (size_t i = 0; i < count; i++) {
        if (keep && i % keep == keep - 1)
            live += size;
        else
            give(block[i]);
    }
    size_t resident = resident_bytes();
    if (resident > live + TOTAL / 10) fprintf(stderr, "%zu of %d bytes stay, %zu of them live\n", resident, TOTAL, live);
    CHECK(resident <= live + TOTAL / 10);
    sound();
    return 0;
}
