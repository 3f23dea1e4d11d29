/* The pages of a first-class heap go on to others, who verify that what they get is zero; the slots, spans and large
 * blocks that it held, those that were freed before, and those that wait in a quarantine. */
#include "../tools.h"

enum { COUNT = 300 };
static const size_t sizes[] = {1, 8, 24, 48, 100, 500, 1000, 3000, 8000, 20000, 70000, 200000, 500000};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* A heap that leaves its bytes behind: some blocks live, some freed. */
static void leave_bytes(size_t size, size_t count) {
    static void *block[COUNT];
    slabside_heap *heap = slabside_heap_create();
    for (size_t i = 0; i < count; i++) block[i] = memset(slabside_heap_malloc(heap, size), 'x', size);
    for (size_t i = 0; i < count; i += 3) slabside_free(block[i]);
    slabside_heap_destroy(heap);
}

static void take_over(size_t size, size_t count) {
    static void *block[COUNT];
    for (size_t i = 0; i < count; i++) block[i] = memset(slabside_malloc(size), 'y', size);
    for (size_t i = 0; i < count; i++) slabside_free(block[i]);
}

int main(void) {
    slabside_free(slabside_malloc(48));
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < SIZES; i++) {
            size_t count = sizes[i] > 10000 ? 10 : COUNT;
            leave_bytes(sizes[i], count);
            take_over(sizes[i], count);
            /* Other classes too: without guards pages go from one to another. */
            take_over(sizes[(i + 5) % SIZES], 10);
        }
    sound();
    return 0;
}
