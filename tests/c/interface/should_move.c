/* Blocks are moved by the allocator's advice until a heap of which a tenth is live has few pages more than it
 * needs. Edges: NULL, blocks with pages of their own, and a heap in which nothing can be gained. */
#include "../tools.h"

enum { COUNT = 400000, SIZE = 200, PASSES = 12 };
static void *block[COUNT];

static size_t live_bytes(void) {
    size_t n = 0;
    for (int i = 0; i < COUNT; i++) n += block[i] != NULL;
    return n * room(block[0]);
}

static bool is_whole(int i) { return all_are(block[i], (unsigned char)i, SIZE); }

/* Moves what the allocator advises to move; how many. */
static size_t pass(void) {
    size_t moved = 0;
    for (int i = 0; i < COUNT; i++) {
        if (!block[i] || !slabside_should_move(block[i])) continue;
        void *anew = take(SIZE);
        CHECK(anew != NULL && is_whole(i));
        memcpy(anew, block[i], SIZE);
        give(block[i]);
        block[i] = anew;
        moved++;
    }
    return moved;
}

static void edges(void) {
    struct slabside_occupancy of = {1, 1, 1, 1};
    CHECK(!slabside_should_move(NULL));
    slabside_occupancy(NULL, &of);
    CHECK(of.live == 0 && of.slots == 0 && of.class_live == 0 && of.class_slots == 0);
    for (size_t size = 40000; size < 2 * MIB; size *= 4) {
        void *large = take(size);
        CHECK(!slabside_should_move(large));
        slabside_occupancy(large, &of);
        CHECK(of.slots == 0);
        give(large);
    }
    void *one = take(SIZE);
    slabside_occupancy(one, &of);
    CHECK(of.live >= 1 && of.slots >= of.live && !slabside_should_move(one));
    give(one);
}

int main(void) {
    uint64_t random = 0x9e3779b97f4a7c15ULL;
    small_pages_only();
    edges();
    memset(block, 0xff, sizeof block); /* resident before the first figure */
    size_t before = resident_bytes();
    for (int i = 0; i < COUNT; i++) block[i] = memset(take(SIZE), i & 0xff, SIZE);
    for (int i = 1; i < COUNT; i++) {
        if (random_next(&random) % 10 == 0) continue;
        give(block[i]);
        block[i] = NULL;
    }
    CHECK(resident_bytes() - before > 3 * live_bytes());
    size_t moved = 1;
    for (int i = 0; i < PASSES && moved; i++) moved = pass();
    CHECK(moved == 0); /* The advice ends. */
    malloc_trim(0);
    size_t resident = resident_bytes() - before, live = live_bytes();
    if (resident > live / 10 * 12) fprintf(stderr, "%zu bytes resident for %zu live\n", resident, live);
    CHECK(resident <= live / 10 * 12);
    for (int i = 0; i < COUNT; i++) CHECK(!block[i] || is_whole(i));
    CHECK(slabside_validate() == 0);
    return 0;
}
