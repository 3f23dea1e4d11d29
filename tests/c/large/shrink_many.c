/* usage: shrink_many FROM TO COUNT MOST_KIB - COUNT blocks of FROM bytes, filled and then made TO bytes long by
 * realloc, have at most MOST_KIB resident, and keep their contents. */
#include "../tools.h"

enum { MOST = 100000 };

int main(int argc, char **argv) {
    CHECK(argc == 5);
    size_t from = strtoul(argv[1], NULL, 10), to = strtoul(argv[2], NULL, 10);
    size_t count = strtoul(argv[3], NULL, 10), most = strtoul(argv[4], NULL, 10) * KIB;
    static unsigned char *block[MOST];
    CHECK(count <= MOST);
    small_pages_only();
    give(take(1));
    size_t before = resident_bytes();
    for (size_t i = 0; i < count; i++) {
        block[i] = memset(take(from), (int)(i & 0xff), from);
        block[i] = resize(block[i], to);
        CHECK(block[i] != NULL && room(block[i]) >= to);
    }
    malloc_trim(0);
    size_t now = resident_bytes() - before;
    if (now > most) dprintf(STDERR_FILENO, "%zu KiB resident\n", now / KIB);
    CHECK(now <= most);
    for (size_t i = 0; i < count; i++) CHECK(all_are(block[i], (unsigned char)i, to));
    for (size_t i = 0; i < count; i++) give(block[i]);
    sound();
    return 0;
}
