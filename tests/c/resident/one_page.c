/* Of blocks of several pages the program writes to the first page alone: little more than those pages is resident. Huge
 * pages would make all of each block so. */
#include "../tools.h"

enum { BLOCKS = 20000, LEAST = 9000, MOST = 36000 };

/* Whether the kernel gives huge pages to whoever does not refuse them. */
static int huge_pages_come_unasked(void) {
    char line[64] = "";
    int file = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
    if (file >= 0) {
        ssize_t bytes = read(file, line, sizeof line - 1);
        line[bytes > 0 ? bytes : 0] = 0;
        close(file);
    }
    return strstr(line, "[always]") != NULL;
}

int main(void) {
    if (huge_pages_come_unasked()) small_pages_only();
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
