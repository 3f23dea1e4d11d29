/* holes SIZE KEPT MOST: 200 MB of blocks of SIZE bytes, all freed but a random one in KEPT. Two seconds and
 * some calls later at most MOST MB are resident, what is left is unchanged, and all can be used again. */
#include "tools.h"

enum { TOTAL = 200000000, ROUNDS = 200 };

/* The pointers lie apart from the heap, and are not counted. */
static void **table(size_t count) {
    void *start = mmap(NULL, count * sizeof(void *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED);
    return (void **)start;
}

/* Some calls that hold nothing, now and then, for two seconds. */
static void idle_about(void) {
    for (int i = 0; i < ROUNDS; i++) {
        wait_ms(10);
        for (int j = 0; j < 16; j++) give(take(20000));
        for (int j = 0; j < 64; j++) give(take(40));
    }
}

static void fill(void **block, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++) {
        if (block[i]) continue;
        block[i] = take(size);
        CHECK(block[i] != NULL);
        memset(block[i], (int)(i & 0xff), size);
    }
}

static void check_all(void **block, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (block[i]) CHECK(all_are(block[i], (unsigned char)i, size));
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    size_t size = strtoul(argv[1], NULL, 10), kept = strtoul(argv[2], NULL, 10), most = strtoul(argv[3], NULL, 10);
    size_t count = TOTAL / size;
    uint64_t random = 0x9e3779b97f4a7c15ULL;
    small_pages_only();
    void **block = table(count);
    fill(block, count, size);
    size_t apart = resident_pages(block, count * sizeof(void *)) * PAGE_BYTES;
    CHECK(resident_bytes() - apart > TOTAL);
    for (size_t i = 0; i < count; i++) {
        if (random_next(&random) % kept == 0) continue;
        give(block[i]);
        block[i] = NULL;
    }
    idle_about();
    size_t resident = (resident_bytes() - apart) / 1000000;
    if (resident > most) fprintf(stderr, "%zu MB are resident, not %zu\n", resident, most);
    CHECK(resident <= most);
    check_all(block, count, size);
    sound();
    fill(block, count, size);
    check_all(block, count, size);
    CHECK((resident_bytes() - apart) / 1000000 < TOTAL / 1000000 * 12 / 10);
    sound();
    for (size_t i = 0; i < count; i++) give(block[i]);
    return 0;
}
