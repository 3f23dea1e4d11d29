/* A large block grows by mremap: never copied, so that there are never two of it, and its contents stay
 * even if something lies right behind it each time. What it shrinks by goes back. */
#include "tools.h"

enum { WORDS_APART = PAGE_BYTES / sizeof(size_t) };

int main(void) {
    size_t size = 64 * MIB, most = 128 * MIB;
    small_pages_only();
    size_t *block = take(size);
    for (size_t i = 0; i < size / sizeof *block; i += WORDS_APART) block[i] = i;
    for (size_t more = size; more < most;) {
        char *behind = (char *)block + room(block);
        mmap(behind, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        more += MIB;
        block = resize(block, more);
        CHECK(block != NULL && room(block) >= more);
        CHECK(block[0] == 0 && block[WORDS_APART] == WORDS_APART);
    }
    for (size_t i = 0; i < size / sizeof *block; i += WORDS_APART) CHECK(block[i] == i);
    CHECK(resident_peak() < 100 * MIB);

    block = resize(block, MIB);
    CHECK(block != NULL && block[MIB / sizeof *block - WORDS_APART] == MIB / sizeof *block - WORDS_APART);
    CHECK(resident_bytes() < 20 * MIB);
    give(block);
    sound();
    return 0;
}
