/* As many objects as were freed can be had again without a new slab and without moving the break, even
 * if each slab has but one free slot. */
#include "tools.h"

enum { COUNT = 12000 };
static void *object[COUNT];

static void refill(size_t size, size_t stride) {
    struct slabside_stats before = figures();
#ifdef PREFIXED
    CHECK(before.slabs >= COUNT / 512);
#endif
    char *end = break_now();
    for (size_t i = stride - 1; i < COUNT; i += stride) give(object[i]);
    for (size_t i = stride - 1; i < COUNT; i += stride) {
        object[i] = take(size);
        memset(object[i], 0x11, size);
        CHECK(break_now() <= end);
    }
    CHECK(figures().slabs <= before.slabs);
}

int main(void) {
    static const size_t sizes[] = {8, 16, 48, 64, 200, 512, 1000};
    static const size_t strides[] = {2, 3, 7, 64, 255, 256, 257, 1024};
    for (int i = 0; i < 7; i++) {
        for (size_t j = 0; j < COUNT; j++) object[j] = take(sizes[i]);
        for (int j = 0; j < 8; j++) refill(sizes[i], strides[j]);
        for (size_t j = 0; j < COUNT; j++) give(object[j]);
    }
    for (int i = 0; i < 200; i++) object[i] = take(20000);
    char *end = break_now();
    for (int i = 1; i < 200; i += 2) give(object[i]);
    for (int i = 1; i < 200; i += 2) object[i] = take(20000);
    CHECK(break_now() <= end);
    sound();
    return 0;
}
