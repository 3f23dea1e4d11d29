/* Writes random words over its own metadata for good, and allocates no more: what reads it from outside must come to an
 * end all the same. */
#include "../check.h"

#include <stdint.h>

int main(void) {
    enum { BLOCKS = 20000 };
    static void *held[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        CHECK(held[i] = malloc(i % 500));
    /* The first page stays as it is, so that there is a region at all; what lies behind is slabs and page map. */
    volatile uint32_t *region = (volatile uint32_t *)slabside_region;
    CHECK(region);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    uint64_t state = 88172645463325252u;
    for (uint32_t i = 0;; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint32_t value = i % 3 == 0 ? (uint32_t)state % 4000 : i % 3 == 1 ? 0 : (uint32_t)state;
        region[1024 + (state >> 20) % 4096] = value;
    }
}
