/* mremap fails: aligned_realloc copies, and to a block that is aligned as well. */
#include "../tools.h"

void *mremap(void *old, size_t old_size, size_t size, int flags, ...) {
    (void)old, (void)old_size, (void)size, (void)flags;
    errno = ENOMEM;
    return MAP_FAILED;
}

static void there_and_back(size_t align, size_t small) {
    char *block = memset(slabside_aligned_alloc(align, 300000), 5, 300000);
    block = slabside_aligned_realloc(block, align, small);
    CHECK((uintptr_t)block % align == 0);
    slabside_malloc_trim(0);
    for (size_t size = small + small / 5; size < 900000; size += size / 5 + 1) {
        block = slabside_aligned_realloc(block, align, size);
        CHECK(block != NULL && (uintptr_t)block % align == 0 && all_are(block, 5, small));
    }
    slabside_free(block);
}

int main(void) {
    for (int round = 0; round < 3; round++)
        for (size_t align = 16; align <= 65536; align *= 4)
            for (size_t small = 16; small < 50000; small *= 4) there_and_back(align, small);
    sound();
    return 0;
}
