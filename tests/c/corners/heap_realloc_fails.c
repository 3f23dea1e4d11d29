/* A realloc that fails, or that leaves its heap, and what the heap still owns afterwards. */
#include "../tools.h"

enum { BYTES = 1 << 20 };

static char *filled(slabside_heap *heap) { return memset(slabside_heap_malloc(heap, BYTES), 7, BYTES); }

static void fails(slabside_heap *heap, char *block, size_t size) {
    errno = 0;
    CHECK(slabside_heap_realloc(heap, block, opaque_size(size)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(slabside_realloc(block, opaque_size(size)) == NULL && errno == ENOMEM);
    CHECK(all_are(block, 7, BYTES));
}

int main(void) {
    struct slabside_stats before = figures();
    slabside_heap *heap = slabside_heap_create();
    char *first = filled(heap), *second = filled(heap);
    for (size_t size = (size_t)1 << 46; size != 0; size <<= 4) fails(heap, first, size);
    /* Both belong to it as before: they go with it. */
    slabside_heap_destroy(heap);
    CHECK(figures().large == before.large && figures().live == before.live);
    (void)second;
    sound();

    /* Moved by its own realloc a block stays in the heap, wherever it goes. */
    heap = slabside_heap_create();
    first = filled(heap);
    for (size_t size = 2 * BYTES; size <= 16 * BYTES; size *= 2) first = slabside_heap_realloc(heap, first, size);
    CHECK(all_are(first, 7, BYTES));
    slabside_heap_destroy(heap);
    CHECK(figures().large == before.large && figures().live == before.live);
    sound();
    return 0;
}
