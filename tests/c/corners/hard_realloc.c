/* The plain realloc on a first-class heap's blocks of every kind: what moves is no heap's, what was noted of it stays. */
#include "../tools.h"

static char *filled(slabside_heap *heap, size_t size) { return memset(slabside_heap_malloc(heap, size), 1, size); }

static void moves(size_t from, size_t to, size_t back) {
    slabside_heap *heap = slabside_heap_create();
    char *block = slabside_realloc(filled(heap, from), to);
    CHECK(all_are(block, 1, from < to ? from : to));
    memset(block, 2, to);
    slabside_free(block);

    block = slabside_realloc(slabside_realloc(filled(heap, from), to), back);
    size_t kept = from < to ? from : to;
    CHECK(all_are(block, 1, back < kept ? back : kept));
    slabside_free(block);

    char *old = filled(heap, from);
    block = slabside_realloc(old, to);
    int moved = block != old;
    slabside_heap_destroy(heap);
    if (moved) { /* It outlives the heap. */
        memset(block, 3, to);
        slabside_free(block);
    }
}

int main(void) {
    static const size_t sizes[] = {10, 100, 1000, 5000, 20000, 100000, 200000, 300000, 700000, 3000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) moves(sizes[i], sizes[j], 200000);
    CHECK(figures().large == 0);
    sound();
    return 0;
}
