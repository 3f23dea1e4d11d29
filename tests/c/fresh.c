/* calloc does not clear pages that are fresh from the kernel: they stay without memory until touched.
 * So also after the heap has shrunk and grown again; and what is not fresh is cleared. */
#include "tools.h"

enum { SPANS = 200, SPAN_BYTES = 100000, OBJECTS = 20480 };
static void *span[SPANS], *object[OBJECTS];

static size_t take_zeroed_spans(void) {
    size_t resident = 0;
    for (int i = 0; i < SPANS; i++) {
        span[i] = calloc(1, SPAN_BYTES);
        CHECK(span[i] != NULL);
    }
    for (int i = 0; i < SPANS; i++) resident += resident_pages(span[i], SPAN_BYTES);
    for (int i = 0; i < SPANS; i++) CHECK(all_are(span[i], 0, SPAN_BYTES));
    for (int i = 0; i < SPANS; i++) memset(span[i], 0xee, SPAN_BYTES);
    return resident;
}

static void large_blocks(void) {
    size_t sizes[] = {200000, MIB, 64 * MIB};
    for (int i = 0; i < 3; i++) {
        char *block = calloc(1, sizes[i]);
        CHECK(block != NULL && resident_pages(block, sizes[i]) <= 1);
        CHECK(all_are(block, 0, sizes[i]));
        memset(block, 0xee, sizes[i]);
        give(block);
        block = calloc(1, sizes[i]);
        CHECK(all_are(block, 0, sizes[i]));
        give(block);
    }
}

static void swell_and_shrink(char *start) {
    for (int i = 0; i < OBJECTS; i++) object[i] = memset(take(1024), 0xee, 1024);
    for (int i = 0; i < OBJECTS; i++) give(object[i]);
    CHECK(break_now() <= start + 256 * KIB);
}

int main(void) {
    char *start = break_now();
    small_pages_only();
    large_blocks();
    swell_and_shrink(start);
    /* Up to 256 KiB of used pages may wait at the heap's end; the rest comes fresh. */
    CHECK(take_zeroed_spans() <= 256 * KIB / PAGE_BYTES + 16);
    /* Beside live ones: all fresh again. */
    CHECK(take_zeroed_spans() <= 16);
    for (int i = 0; i < SPANS; i++) give(span[i]);
    /* Freed ones were dirty, kept or given back: zeros all the same. */
    take_zeroed_spans();
    sound();
    return 0;
}
