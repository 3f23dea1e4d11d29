/* trim SIZE KEPT MOST: 100 MB of blocks of SIZE bytes, all freed but every KEPT-th (0: all are). malloc_trim gives back
 * all that is kept for reuse: beyond the live bytes at most MOST KiB are resident at once. What is left is
 * unchanged, and all can be used again. */
#include "tools.h"

#include <malloc.h>

enum { TOTAL = 100000000 };

static void fill(void **block, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (!block[i]) memset(block[i] = take(size), (int)(i & 0xff), size);
}

static void check_all(void **block, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (block[i]) CHECK(all_are(block[i], (unsigned char)i, size));
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    size_t size = strtoul(argv[1], NULL, 10), kept = strtoul(argv[2], NULL, 10), most = strtoul(argv[3], NULL, 10);
    size_t count = TOTAL / size, live = 0;
    small_pages_only();
    /* The pointers lie apart from the heap, and are not counted. */
    void **block = mmap(NULL, count * sizeof *block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED);
    fill(block, count, size);
    size_t apart = resident_pages(block, count * sizeof *block) * PAGE_BYTES;
    CHECK(resident_bytes() - apart > TOTAL);
    for (size_t i = 0; i < count; i++) {
        if (kept && i % kept == kept - 1) {
            live += size;
            continue;
        }
        give(block[i]);
        block[i] = NULL;
    }
    malloc_trim(0);
    size_t resident = (resident_bytes() - apart - live) / KIB;
    if (resident > most) fprintf(stderr, "%zu KiB are resident beyond what is live, not %zu\n", resident, most);
    CHECK(resident <= most);
    check_all(block, count, size);
    sound();
    fill(block, count, size);
    check_all(block, count, size);
    for (size_t i = 0; i < count; i++) give(block[i]);
    sound();
    return 0;
}
