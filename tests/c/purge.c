/* What lies free inside the heap, behind a live object at its end, costs no memory for long; nor do
 * freed spans. */
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

/* Spans are kept for reuse, but not for ever. */
static void spans_too(void) {
    size_t before = resident_bytes();
    for (int i = 0; i < 1000; i++) object[i] = memset(take(40000), 0xee, 40000);
    CHECK(resident_bytes() > before + 36 * MIB);
    for (int i = 0; i < 1000; i++) give(object[i]);
    wait_ms(1200);
    CHECK(comes_down_to(before + 6 * MIB));
}

int main(void) {
    small_pages_only();
    spans_too();
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
