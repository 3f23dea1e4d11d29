/* A server over time: phases of mixed sizes, each dropping to 40 % at random and refilled. At the end of each phase not
 * much more is resident than live.
 *
 * usage: server PERCENT */
#include "../tools.h"

enum { LIVE = 60000000, MOST = 400000, PHASES = 8 };

static void *blocks[MOST];
static uint32_t sizes[MOST];

static uint32_t mixed(uint64_t *random, unsigned phase) {
    uint64_t kind = random_next(random) % 100, more = random_next(random);
    if (kind < 85) return (uint32_t)(16 + more % (200 + 60 * phase));
    if (kind < 97) return (uint32_t)(500 + more % (1500 + 400 * phase));
    return (uint32_t)(4000 + more % 30000);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    size_t percent = strtoul(argv[1], NULL, 10), count = 0, live = 0;
    uint64_t random = 88172645463325252;
    small_pages_only();
    memset(blocks, 1, sizeof blocks), memset(sizes, 1, sizeof sizes);
    give(take(1));
    size_t before = resident_bytes();
    for (unsigned phase = 0; phase < PHASES; phase++) {
        for (; live < LIVE; count++) {
            CHECK(count < MOST);
            sizes[count] = mixed(&random, phase);
            blocks[count] = memset(take(sizes[count]), 1, sizes[count]);
            live += sizes[count];
        }
        size_t resident = resident_bytes() - before;
        if (resident > live / 100 * percent) dprintf(STDERR_FILENO, "%u: %zu bytes for %zu\n", phase, resident, live);
        CHECK(resident <= live / 100 * percent);
        while (live > LIVE / 10 * 4) {
            size_t i = random_next(&random) % count;
            give(blocks[i]);
            live -= sizes[i];
            blocks[i] = blocks[--count], sizes[i] = sizes[count];
        }
    }
    sound();
    return 0;
}
