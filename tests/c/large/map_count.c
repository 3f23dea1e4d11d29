/* At vm.max_map_count the kernel unmaps no part of a mapping: what was freed gives up its pages, and serves later
 * blocks, whatever their number. Once there is room again one trim gives all of it back. */
#include "../tools.h"

enum { BLOCKS = 1200, SPLITS = 1 << 20 };
static unsigned char *block[BLOCKS];

/* Every other block, `size` bytes each. */
static void refill(size_t size) {
    for (int i = 0; i < BLOCKS; i += 2) {
        CHECK((block[i] = take(size)) != NULL);
        memset(block[i], i & 0xff, size);
    }
    for (int i = 0; i < BLOCKS; i += 2) CHECK(all_are(block[i], (unsigned char)i, size));
}

static void drain(int first) {
    for (int i = first; i < BLOCKS; i += 2) give(block[i]);
}

int main(void) {
    const size_t size = 200000, half = BLOCKS / 2 * size;
    small_pages_only();
    give(take(1));
    size_t before = resident_bytes();
    for (int i = 0; i < BLOCKS; i++) memset(block[i] = take(size), i & 0xff, size);
    char *split = mmap(NULL, SPLITS * 2L * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(split != MAP_FAILED);
    long splits = 0;
    while (mprotect(split + splits * 2 * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE) == 0) CHECK(++splits < SPLITS);
    size_t full = resident_bytes() - before;

    drain(0);
    CHECK(malloc_trim(0) == 1);
    CHECK(resident_bytes() - before < full - half * 3 / 4);
    refill(size - 1000);
    drain(0);
    refill(150000);
    drain(0);
    malloc_trim(0);
    for (int i = 1; i < BLOCKS; i += 2) CHECK(all_are(block[i], (unsigned char)i, size));

    munmap(split, SPLITS * 2L * PAGE_BYTES);
    drain(1);
    malloc_trim(0);
    CHECK(figures().mapped < MIB && figures().large == 0);
    CHECK(resident_bytes() < before + 8 * MIB);
    sound();
    return 0;
}
