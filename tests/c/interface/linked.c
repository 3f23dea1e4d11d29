/* A program linked with the shared library: malloc's blocks and slabside_malloc's are of one heap, which the program
 * can ask. */
#include "slabside.h"
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

int main(void) {
    struct slabside_stats before, after;
    slabside_stats(&before);
    char *common = malloc(3 << 20), *ours = slabside_malloc(5 << 20);
    CHECK(common && ours);
    slabside_stats(&after);
    CHECK(after.live - before.live >= (size_t)8 << 20 && after.large == before.large + 2);
    CHECK(slabside_usable_size(common) >= (size_t)3 << 20);
    slabside_free(common);
    free(ours);
    slabside_stats(&after);
    CHECK(after.large == before.large);
    CHECK(slabside_validate() == 0);
    // The linker makes the variable the program's own (a copy relocation).
    CHECK(slabside_region != 0);
    puts("done");
    return 0;
}
