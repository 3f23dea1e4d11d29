/* A million pairs of malloc and free grow the heap by nothing, with nothing else live and with some. */
#include "tools.h"

static const size_t sizes[] = {0, 8, 24, 48, 100, 500, 1000, 4000, 8192, 8193, 20000, 131072, 200000, 1000000};

static size_t rounds(size_t size) { return size <= 8192 ? 1000000 : size <= 131072 ? 200000 : 20000; }

struct extent {
    char *end;
    size_t mapped;
};

static struct extent extent(void) { return (struct extent){break_now(), mapped_bytes()}; }

static void unchanged_since(struct extent before) {
    CHECK(break_now() <= before.end);
    CHECK(mapped_bytes() <= before.mapped);
}

static void pairs(size_t size) {
    give(take(size));
    struct extent before = extent();
    for (size_t i = 0; i < rounds(size); i++) {
        volatile char *block = take(size);
        CHECK(block != NULL);
        *block = 1;
        give((void *)block);
    }
    unchanged_since(before);
}

/* The oldest of a hundred goes, and a new one comes. */
static void ring(size_t size) {
    void *block[100];
    for (int i = 0; i < 100; i++) block[i] = take(size);
    struct extent before = extent();
    for (size_t i = 0; i < rounds(size); i++) {
        give(block[i % 100]);
        block[i % 100] = take(size);
        CHECK(block[i % 100] != NULL);
    }
    unchanged_since(before);
    for (int i = 0; i < 100; i++) give(block[i]);
}

int main(void) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) pairs(sizes[i]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) ring(sizes[i]);
    sound();
    return 0;
}
