/* heaps CASE: misuse of blocks of a first-class heap, or what the heap promises. Whoever survives a misuse exits 3. */
#include "../tools.h"

enum { MANY = 1000 };
static slabside_heap *heap;
static void *block[MANY];

__attribute__((noipa)) static void *take_from_heap(size_t size) { return slabside_heap_malloc(heap, size); }

static void overflow(size_t size) {
    char *p = take_from_heap(size);
    p[size] ^= 1;
    slabside_free(p);
}
static void overflow_of_a_slot(void) { overflow(40); }
static void overflow_of_a_span(void) { overflow(20000); }
static void overflow_of_a_large_block(void) { overflow(300001); }
static void overflow_found_by_the_end(void) {
    char *p = take_from_heap(40);
    p[40] ^= 1;
    slabside_heap_destroy(heap);
}
static void overflow_up_to_a_fault(void) { memset(take_from_heap(40), 1, opaque_size(1 << 20)); }
static void overflow_of_whole_pages(void) { ((volatile char *)take_from_heap(17 * PAGE_BYTES))[17 * PAGE_BYTES] = 1; }
static void underflow_of_whole_pages(void) { ((volatile char *)take_from_heap(17 * PAGE_BYTES))[-1] = 1; }
static void write_after_free(void) {
    char *dead = take_from_heap(40);
    slabside_free(dead);
    dead[13] = 1;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < MANY; i++) block[i] = take_from_heap(40);
        for (int i = 0; i < MANY; i++) slabside_free(block[i]);
    }
}
static void touch_after_free_of_a_large_block(void) {
    volatile char *dead = take_from_heap(300000);
    slabside_free((void *)dead);
    dead[5] = 1;
}
static void double_free_in_quarantine(void) {
    void *dead = take_from_heap(40);
    slabside_free(dead);
    for (int i = 0; i < 100; i++) slabside_free(take_from_heap(40));
    slabside_free(dead);
}

/* No block comes back soon, addresses do not simply rise, and each block is zero. */
static void promises(void) {
    char *dead = take_from_heap(48);
    slabside_free(dead);
    int up = 0;
    for (int i = 0; i < MANY; i++) {
        block[i] = take_from_heap(48);
        CHECK(block[i] != dead && all_are(block[i], 0, 48));
        memset(block[i], 1, 48);
        up += i > 0 && block[i] > block[i - 1];
        if (i % 2) slabside_free(block[i]);
    }
    CHECK(up < MANY * 8 / 10);
    slabside_heap_destroy(heap);
    sound();
}

#define MISUSE(name) {#name, name, 3}
static const struct {
    const char *name;
    void (*run)(void);
    int status;
} cases[] = {
    MISUSE(overflow_of_a_slot), MISUSE(overflow_of_a_span), MISUSE(overflow_of_a_large_block),
    MISUSE(overflow_found_by_the_end), MISUSE(overflow_up_to_a_fault), MISUSE(overflow_of_whole_pages),
    MISUSE(underflow_of_whole_pages), MISUSE(write_after_free), MISUSE(touch_after_free_of_a_large_block),
    MISUSE(double_free_in_quarantine), {"promises", promises, 0},
};

int main(int argc, char **argv) {
    CHECK(argc == 2);
    heap = slabside_heap_create();
    CHECK(heap != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, argv[1]) != 0) continue;
        cases[i].run();
        return cases[i].status;
    }
    CHECK(!"a case");
}
