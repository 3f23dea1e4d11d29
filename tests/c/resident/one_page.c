/* Of blocks of several pages the program writes to the first page alone: little more than those pages is resident. Huge
 * pages would make all of each block so. */
#include "../tools.h"

enum { BLOCKS = 20000, LEAST = 9000, MOST = 36000 };

int main(void) {
    uint64_t random = 88172645463325252u;
    give(take(1));
    size_t before = resident_bytes();
    for (int i = 0; i < BLOCKS; i++) {
        volatile char *block = take(LEAST + random_next(&random) % (MOST - LEAST));
        CHECK(block != NULL);
        *block = 1;
    }
    size_t resident = resident_bytes() - before, used = (size_t)BLOCKS * PAGE_BYTES;
    if (resident > used * 3 / 2) dprintf(STDERR_FILENO, "%zu bytes for %zu\n", resident, used);
    CHECK(resident <= used * 3 / 2);
    sound();
    return 0;
}
