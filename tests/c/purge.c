/* What lies free inside the heap, behind a live object at its end, costs no memory for long. */
#include "tools.h"

enum { OBJECTS = 40960 };
static void *object[OBJECTS];

/* A few calls, for the heap to notice that time has passed. */
static void some_calls(void) {
    for (int i = 0; i < 1000; i++) give(take(64));
    give(take(20000));
}

int main(void) {
    for (int i = 0; i < OBJECTS; i++) object[i] = memset(take(1024), 0xee, 1024);
    sort_addresses(object, OBJECTS);
    size_t swollen = resident_bytes();
    CHECK(swollen > 40 * MIB);
    for (int i = 0; i < OBJECTS - 1; i++) give(object[i]);
    wait_ms(1200);
    for (int i = 0; i < 10; i++) {
        some_calls();
        wait_ms(20);
    }
    CHECK(resident_bytes() < swollen - 36 * MIB);
    CHECK(all_are(object[OBJECTS - 1], 0xee, 1024));
    sound();
    for (int i = 0; i < OBJECTS; i++) { /* and all of it can be used again */
        object[i] = calloc(1, 1024);
        CHECK(all_are(object[i], 0, 1024));
    }
    return 0;
}
