/* What lies free inside the heap, behind a live object at its end, costs no memory for long; nor do
 * freed blocks of several pages. */
#include "tools.h"

enum { OBJECTS = 40960 };
static void *object[OBJECTS];

/* Calls that hold nothing, for the heap to notice that time has passed, until no more than `most` bytes are
 * resident: two seconds of them at most. */
static bool comes_down_to(size_t most) {
    for (int i = 0; i < 100; i++) {
        if (resident_bytes() < most) return true;
        for (int j = 0; j < 1000; j++) give(take(64));
        give(take(50000));
        wait_ms(20);
    }
    return false;
}

/* Slots of several pages and spans are kept for reuse, but not for ever. */
static void larger_ones_too(size_t size) {
    size_t before = resident_bytes(), count = 40 * MIB / size;
    for (size_t i = 0; i < count; i++) object[i] = memset(take(size), 0xee, size);
    CHECK(resident_bytes() > before + 36 * MIB);
    for (size_t i = 0; i < count; i++) give(object[i]);
    wait_ms(1200);
    CHECK(comes_down_to(before + 6 * MIB));
}

int main(void) {
    small_pages_only();
    larger_ones_too(20000);
    larger_ones_too(40000);
    for (int i = 0; i < OBJECTS; i++) object[i] = memset(take(1024), 0xee, 1024);
    sort_addresses(object, OBJECTS);
    size_t swollen = resident_bytes();
    CHECK(swollen > 40 * MIB);
    for (int i = 0; i < OBJECTS - 1; i++) give(object[i]);
    wait_ms(1200);
    CHECK(comes_down_to(swollen - 36 * MIB));
    CHECK(all_are(object[OBJECTS - 1], 0xee, 1024));
    sound();
    for (int i = 0; i < OBJECTS; i++) { /* and all of it can be used again */
        object[i] = calloc(1, 1024);
        CHECK(all_are(object[i], 0, 1024));
    }
    return 0;
}
