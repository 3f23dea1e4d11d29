/* calloc of 50 MiB again and again, of which a byte is used: the memory that is kept from the last time is dropped
 * rather than cleared, so that the rest never becomes resident; what was used in full comes back zero as well. */
#include "../tools.h"

int main(void) {
    const size_t size = 50 * MIB;
    small_pages_only();
    for (int i = 0; i < 20; i++) {
        unsigned char *block = calloc(1, opaque_size(size));
        CHECK(block != NULL && block[i * PAGE_BYTES] == 0 && block[size - 1] == 0);
        block[i * PAGE_BYTES] = 1;
        give(block);
    }
    CHECK(resident_peak() < 20 * MIB);
    for (int i = 0; i < 3; i++) {
        unsigned char *block = memset(take(size), 0x55, size);
        give(block);
        block = calloc(1, opaque_size(size - 1000));
        CHECK(block != NULL && all_are(block, 0, size - 1000));
        give(block);
    }
    void *block;
    CHECK(posix_memalign(&block, 64, size) == 0);
    memset(block, 0x55, size / 4);
    give(block);
    block = calloc(1, opaque_size(size - 5000));
    CHECK(block != NULL && all_are(block, 0, size - 5000));
    give(block);
    sound();
    return 0;
}
