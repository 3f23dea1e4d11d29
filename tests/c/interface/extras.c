/* good_size, malloc_at_least, zalloc, aligned_realloc, try_expand: edges and errors. */
#include "../tools.h"

static void good_sizes(void) {
    for (size_t size = 0; size < 600000; size += size < 9000 ? 1 : 997) {
        size_t good = slabside_good_size(size), usable = 1;
        CHECK(good >= size && good >= 8 && slabside_good_size(good) == good);
        void *block = slabside_malloc_at_least(size, &usable);
        CHECK(usable == room(block) && usable >= good);
        CHECK(size > 8 * KIB || usable == good);
        memset(block, 1, usable);
        give(block);
    }
    CHECK(slabside_good_size(SIZE_MAX) == 0 && slabside_good_size((size_t)PTRDIFF_MAX + 1) == 0);
    size_t usable = 1;
    errno = 0;
    CHECK(slabside_malloc_at_least(opaque_size(SIZE_MAX), &usable) == NULL && usable == 0 && errno == ENOMEM);
    give(slabside_malloc_at_least(100, NULL));
}

static void zeros(void) {
    for (size_t size = 0; size < 600000; size = size * 2 + 1) {
        give(memset(take(size), 0xee, size));
        char *block = slabside_zalloc(size);
        CHECK(all_are(block, 0, size));
        give(block);
    }
    errno = 0;
    CHECK(slabside_zalloc(opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
}

static void aligned(void) {
    static const size_t sizes[] = {1, 100, 1000, 5000, 20000, 100000, 200000, 1000000};
    for (size_t align = 1; align <= 4 * MIB; align *= 4)
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 8; j++) {
                unsigned char *block = aligned_alloc(align, sizes[i]);
                memset(block, 0x5a, sizes[i]);
                block = slabside_aligned_realloc(block, align, sizes[j]);
                CHECK((uintptr_t)block % align == 0 && room(block) >= sizes[j]);
                CHECK(all_are(block, 0x5a, sizes[i] < sizes[j] ? sizes[i] : sizes[j]));
                give(block);
            }
    /* From no alignment, and from nothing. */
    char *block = strcpy(take(10), "contents");
    give(take(10));
    block = slabside_aligned_realloc(block, 4096, 100);
    CHECK((uintptr_t)block % 4096 == 0 && !strcmp(block, "contents"));
    char *same = slabside_aligned_realloc(block, 64, room(block));
    CHECK(same == block);
    errno = 0;
    CHECK(slabside_aligned_realloc(block, opaque_size(24), 100) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(slabside_aligned_realloc(block, 64, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    CHECK(!strcmp(block, "contents"));
    give(block);
    block = slabside_aligned_realloc(NULL, 256, 100);
    CHECK((uintptr_t)block % 256 == 0);
    give(block);
}

static void expanding(void) {
    CHECK(!slabside_try_expand(NULL, 1));
    for (size_t size = 1; size < 3 * MIB; size = size * 5 / 2 + 1) {
        unsigned char *block = memset(take(size), 0x33, size);
        CHECK(slabside_try_expand(block, 0) && slabside_try_expand(block, size));
        CHECK(slabside_try_expand(block, room(block)));
        CHECK(!slabside_try_expand(block, opaque_size(SIZE_MAX)));
        CHECK(!slabside_try_expand(block, opaque_size((size_t)PTRDIFF_MAX + 1)));
        size_t more = room(block) + 1, before = room(block);
        if (slabside_try_expand(block, more))
            CHECK(room(block) >= more);
        else
            CHECK(room(block) == before);
        CHECK(all_are(block, 0x33, size));
        memset(block, 0x44, room(block));
        give(block);
    }
    /* Slots cannot grow; spans do while pages are free behind; mappings while nothing lies there. */
    void *slot = take(100);
    CHECK(!slabside_try_expand(slot, 113));
    give(slot);
    size_t spans = 0;
    for (size_t size = 33000; size < 65000; size += 640) {
        char *span = take(size), *behind = take(2 * size), *last = take(50000);
        give(behind);
        malloc_trim(0); /* so that its pages are free */
        memset(span, 1, size);
        if (slabside_try_expand(span, 2 * size)) {
            spans++;
            CHECK(room(span) >= 2 * size && all_are(span, 1, size));
            memset(span, 2, 2 * size);
        }
        free_sized(span, room(span));
        give(last);
    }
    CHECK(spans > 0);
    /* Mappings are placed from above: one below a hole that is smaller has room. */
    size_t met = 0, expanded = 0;
    for (size_t i = 0; i < 20; i++) {
        size_t size = MIB + (10 + i) * 8192;
        char *hole = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(hole != MAP_FAILED);
        unsigned char *large = memset(take(size), 0x55, size);
        bool below = (char *)large + room(large) == hole;
        munmap(hole, MIB);
        bool could = slabside_try_expand(large, size + MIB / 2);
        met += below;
        expanded += below && could;
        if (could) CHECK(room(large) >= size + MIB / 2 && all_are(large + size, 0, MIB / 2));
        CHECK(all_are(large, 0x55, size));
        free_sized(large, could ? size + MIB / 2 : size);
        malloc_trim(0);
    }
    CHECK(met == expanded && met > 0);
}

int main(void) {
    good_sizes();
    zeros();
    aligned();
    expanding();
    sound();
    return 0;
}
