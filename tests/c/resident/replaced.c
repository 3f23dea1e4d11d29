/* A thread replaces small blocks at random, all made by the main thread, which waits.
 *
 * usage: replaced BLOCKS ROUNDS PERCENT: at most so many percent of the live bytes are resident in the end */
#include "../threads/work.h"

static const unsigned char sizes[16] = {16, 24, 32, 32, 48, 48, 64, 64, 64, 80, 96, 112, 128, 160, 200, 250};
static void **table;
static size_t blocks, rounds;

static size_t live;
static void *fresh(uint64_t *random) {
    size_t size = sizes[random_next(random) % 16];
    live += size;
    return memset(take(size), (int)size, size);
}

static void end(void *block) {
    size_t size = *(unsigned char *)block;
    CHECK(all_are(block, (unsigned char)size, size));
    live -= size;
    give(block);
}

static void *replace(void *argument) {
    uint64_t random = 67890;
    for (size_t i = 0; i < rounds; i++) {
        void **place = &table[random_next(&random) % blocks];
        end(*place);
        *place = fresh(&random);
    }
    return argument;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    blocks = strtoul(argv[1], NULL, 10), rounds = strtoul(argv[2], NULL, 10);
    size_t percent = strtoul(argv[3], NULL, 10), bytes = blocks * sizeof(void *);
    small_pages_only();
    table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(table != MAP_FAILED);
    give(take(1));
    size_t before = resident_bytes();
    uint64_t random = 88172645463325252;
    for (size_t i = 0; i < blocks; i++) table[i] = fresh(&random);
    thread_end(thread_start(replace, NULL));
    size_t resident = resident_bytes() - before;
    if (resident > live / 100 * percent) dprintf(STDERR_FILENO, "%zu bytes for %zu\n", resident, live);
    CHECK(resident <= live / 100 * percent);
    for (size_t i = 0; i < blocks; i++) end(table[i]);
    sound();
    return 0;
}
