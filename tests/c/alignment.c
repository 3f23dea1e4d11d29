/* malloc is aligned to 8 for requests up to 8 bytes and to 16 for all others, whoever gives the block;
 * and the functions that take an alignment keep to it. */
#include "tools.h"

static void *checked(void *block, size_t size) {
    CHECK(block != NULL);
    CHECK((uintptr_t)block % (size <= 8 ? 8 : 16) == 0);
    CHECK(room(block) >= size);
    memset(block, 0x5a, room(block));
    return block;
}

static void plain(void) {
    static void *kept[64];
    size_t turn = 0;
    for (size_t size = 0; size <= 300000; size += size < 9000 ? 1 : 4093) {
        void *blocks[] = {take(size), calloc(1, size), resize(take(1), size + 1), resize(take(5000), size + 1)};
        for (int i = 0; i < 4; i++, turn++) {
            give(kept[turn % 64]); /* so that neither full nor empty slabs alone are seen */
            kept[turn % 64] = checked(blocks[i], size + (i >= 2));
        }
    }
}

static void aligned(void) {
    for (size_t align = sizeof(void *); align <= 4 * MIB; align *= 2) {
        size_t sizes[] = {1, 8, 100, align - 1, align, align + 1, 3 * align, 20000, 200000};
        for (int i = 0; i < 9; i++) {
            void *blocks[2] = {aligned_alloc(align, sizes[i])};
            CHECK(posix_memalign(&blocks[1], align, sizes[i]) == 0);
            for (int j = 0; j < 2; j++) CHECK((uintptr_t)checked(blocks[j], sizes[i]) % align == 0);
            for (int j = 0; j < 2; j++) give(resize(blocks[j], sizes[i] + 100));
        }
    }
}

static void refused(void) {
    static const size_t bad[] = {0, 1, 4, 12, 24, 100};
    void *untouched = &untouched;
    for (int i = 0; i < 6; i++) CHECK(posix_memalign(&untouched, bad[i], 100) == EINVAL);
    CHECK(posix_memalign(&untouched, 64, (size_t)PTRDIFF_MAX + 1) == ENOMEM);
    CHECK(untouched == &untouched);
    static const size_t never[] = {0, 3, 24, 100};
    for (int i = 0; i < 4; i++) {
        errno = 0;
        CHECK(aligned_alloc(opaque_size(never[i]), 100) == NULL && errno == EINVAL);
    }
    errno = 0;
    CHECK(aligned_alloc(64, opaque_size(SIZE_MAX - 100)) == NULL && errno == ENOMEM);
    /* Small alignments are alignments too. */
    for (size_t align = 1; align <= 16; align *= 2) {
        void *block = aligned_alloc(align, 1);
        CHECK((uintptr_t)block % align == 0);
        give(block);
    }
}

static void old_names(void) {
    for (size_t size = 1; size < 20000; size += 777) {
        void *m = memalign(256, size), *v = valloc(size), *p = pvalloc(size);
        CHECK((uintptr_t)checked(m, size) % 256 == 0);
        CHECK((uintptr_t)checked(v, size) % PAGE_BYTES == 0);
        CHECK((uintptr_t)checked(p, size) % PAGE_BYTES == 0 && room(p) >= (size + 4095) / 4096 * 4096);
        give(m), give(v), give(p);
    }
    /* Odd alignments are rounded up by memalign, and refused where that cannot be. */
    void *odd = memalign(opaque_size(24), 100), *none = memalign(opaque_size(0), 100);
    CHECK((uintptr_t)odd % 32 == 0 && none != NULL);
    give(odd), give(none);
    errno = 0;
    CHECK(memalign(opaque_size(SIZE_MAX / 2 + 2), 1) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(pvalloc(opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
}

int main(void) {
    plain();
    aligned();
    refused();
    old_names();
    sound();
    return 0;
}
