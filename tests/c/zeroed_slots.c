/* calloc does not clear slots of several pages that nobody had before: they stay without memory until touched. A slot
 * that somebody had is cleared, also if it comes from a slab whose other slots are untouched. */
#include "tools.h"

enum { BLOCKS = 300 };
static unsigned char *block[BLOCKS];
static const size_t sizes[] = {6000, 8200, 16000, 30000, 32768};

static unsigned char *zeroed(size_t size) {
    unsigned char *bytes = calloc(1, opaque_size(size));
    CHECK(bytes != NULL);
    return bytes;
}

static void dirty(unsigned char *bytes) {
    memset(bytes, 0xee, room(bytes));
}

/* Each block that is dirtied comes back before its slab's other slots were all handed out, or after. */
static void used_before_others(size_t size) {
    unsigned char *kept[40];
    for (int i = 0; i < 40; i++) {
        unsigned char *used = zeroed(size);
        CHECK(all_are(used, 0, size));
        dirty(used);
        kept[i] = zeroed(size);
        give(used);
        CHECK(all_are(kept[i], 0, size));
        if (i % 3) dirty(kept[i]);
    }
    for (int i = 0; i < 40; i++) {
        unsigned char *bytes = i % 2 ? zeroed(size) : memset(take(size), 0xee, size);
        CHECK(i % 2 == 0 || all_are(bytes, 0, size));
        dirty(bytes);
        give(kept[i]);
        kept[i] = bytes;
    }
    for (int i = 0; i < 40; i++) give(kept[i]);
}

static void untouched(size_t size) {
    size_t resident = 0;
    for (int i = 0; i < BLOCKS; i++) block[i] = zeroed(size);
    for (int i = 0; i < BLOCKS; i++) resident += resident_pages(block[i], size);
    if (resident > BLOCKS / 4) dprintf(STDERR_FILENO, "%zu bytes: %zu pages\n", size, resident);
    CHECK(resident <= BLOCKS / 4);
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(all_are(block[i], 0, size));
        dirty(block[i]);
    }
    for (int i = 0; i < BLOCKS; i += 2) give(block[i]);
    for (int i = 0; i < BLOCKS; i += 2) {
        block[i] = zeroed(size);
        CHECK(all_are(block[i], 0, size));
        dirty(block[i]);
    }
}

int main(void) {
    small_pages_only();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) untouched(sizes[i]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) used_before_others(sizes[i] - 700);
    sound();
    return 0;
}
