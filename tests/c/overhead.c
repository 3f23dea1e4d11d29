/* usage: overhead SIZE - what 16 MiB of objects of one size, or 200,000 of them, cost: prints the bytes by
 * which the break moved, the bytes asked for in multiples of the alignment, the objects, the bytes of
 * metadata. */
#include "tools.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    size_t size = strtoul(argv[1], NULL, 10);
    size_t align = size <= 8 ? 8 : 16;
    size_t count = 16 * MIB / size < 200000 ? 16 * MIB / size : 200000;
    char *start = break_now();
    for (size_t i = 0; i < count; i++) {
        char *object = take(size);
        CHECK(object != NULL);
        memset(object, 1, size);
    }
    size_t asked = count * ((size + align - 1) & -align);
    dprintf(STDOUT_FILENO, "%zu %zu %zu %zu\n", (size_t)(break_now() - start), asked, count, figures().metadata);
    return 0;
}
