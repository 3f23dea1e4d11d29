/* Phases, each with blocks of another size, all freed in between. What earlier phases left must not lie beside what
 * the next one needs: never is much more resident than was live at some time.
 *
 * usage: phases SIZE ... */
#include "../tools.h"

enum { LIVE = 60000000, MOST = 20000 };

static void *blocks[MOST];

int main(int argc, char **argv) {
    small_pages_only();
    give(take(1));
    memset(blocks, 0, sizeof blocks);
    size_t before = resident_bytes(), most = 0;
    for (int phase = 1; phase < argc; phase++) {
        size_t size = strtoul(argv[phase], NULL, 10), count = LIVE / size, live = 0;
        CHECK(count <= MOST);
        for (size_t i = 0; i < count; i++) {
            blocks[i] = take(size);
            live += size;
            memset(blocks[i], 1, room(blocks[i]));
        }
        size_t resident = resident_bytes() - before;
        most = live > most ? live : most;
        if (resident > most + most / 4) dprintf(STDERR_FILENO, "%zu: %zu bytes for %zu\n", size, resident, most);
        CHECK(resident <= most + most / 4);
        for (size_t i = 0; i < count; i++) give(blocks[i]);
    }
    sound();
    return 0;
}
