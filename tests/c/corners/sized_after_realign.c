/* A block that aligned_realloc leaves where it is is freed with the size and the alignment it was given. */
#include "../tools.h"

static char *at_multiple_of(size_t align, size_t size) {
    static void *others[1 << 16];
    size_t count = 0;
    char *block = slabside_malloc(size);
    while ((uintptr_t)block % align != 0) {
        others[count++] = block;
        CHECK(count < sizeof others / sizeof *others);
        block = slabside_malloc(size);
    }
    while (count > 0) slabside_free(others[--count]);
    return block;
}

int main(void) {
    for (size_t align = 1; align <= 4096; align *= 2)
        for (size_t size = 1; size <= 9000; size = size * 3 / 2 + 1)
            for (size_t to = size; to > 0 && to + 40 > size; to -= to > 7 ? 7 : to) {
                char *block = at_multiple_of(align, size);
                block = slabside_aligned_realloc(block, align, to);
                CHECK(block != NULL && (uintptr_t)block % align == 0);
                slabside_free_aligned_sized(block, align, to);
            }
    /* From large to small and back. */
    for (size_t align = 16; align <= 65536; align *= 4)
        for (size_t size = 400000; size > 0; size /= 7) {
            char *block = slabside_aligned_alloc(align, 400000);
            block = slabside_aligned_realloc(block, align, size);
            block = slabside_aligned_realloc(block, align, size + size / 10 + 1);
            CHECK((uintptr_t)block % align == 0);
            slabside_free_aligned_sized(block, align, size + size / 10 + 1);
        }
    sound();
    return 0;
}
