/* Blocks of one size, all in use: at most 12 % more is resident than was asked for.
 *
 * usage: little_more SIZE */
#include "../tools.h"

enum { LIVE = 60000000, MOST = 20000 };

static void *blocks[MOST];

int main(int argc, char **argv) {
    CHECK(argc == 2);
    small_pages_only();
    size_t size = strtoul(argv[1], NULL, 10), count = LIVE / size;
    CHECK(count <= MOST);
    memset(blocks, 0, sizeof blocks);
    give(take(1));
    size_t before = resident_bytes();
    for (size_t i = 0; i < count; i++) {
        blocks[i] = take(size);
        memset(blocks[i], 1, room(blocks[i]));
    }
    size_t resident = resident_bytes() - before, asked = count * size;
    if (resident > asked / 100 * 112) dprintf(STDERR_FILENO, "%zu bytes for %zu\n", resident, asked);
    CHECK(resident <= asked / 100 * 112);
    for (size_t i = 0; i < count; i++) give(blocks[i]);
    sound();
    return 0;
}
