/* calloc gives zeros, whatever lay there before, and refuses a product that overflows. */
#include "tools.h"

enum { BLOCKS = 500 };

/* Every block is dirtied up to its last byte, and two in five are asked for zeroed. */
static void churn(uint64_t seed, size_t largest, int rounds) {
    static struct { unsigned char *bytes; } table[BLOCKS];
    for (int i = 0; i < rounds; i++) {
        unsigned char **place = &table[random_next(&seed) % BLOCKS].bytes;
        size_t size = random_next(&seed) % (random_next(&seed) % largest + 1);
        give(*place);
        if (random_next(&seed) % 5 < 2) {
            size_t count = size % 7 == 0 ? 7 : 1;
            *place = calloc(count, size / count);
            CHECK(*place != NULL && all_are(*place, 0, size));
        } else {
            *place = take(size);
            if (size > 1 && random_next(&seed) % 4 == 0) *place = resize(*place, size / 2);
        }
        memset(*place, 0xee, room(*place));
    }
    for (int i = 0; i < BLOCKS; i++) {
        give(table[i].bytes);
        table[i].bytes = NULL;
    }
}

static void same_size_again(void) {
    static void *block[40];
    for (size_t size = 1; size < 3000000; size += size / 3 + 1) {
        for (int i = 0; i < 40; i++) block[i] = memset(take(size), 0xee, size);
        for (int i = 0; i < 40; i++) give(block[i]);
        for (int i = 0; i < 10; i++) {
            block[i] = calloc(size, 1);
            CHECK(block[i] != NULL && all_are(block[i], 0, size));
        }
        for (int i = 0; i < 10; i++) give(block[i]);
    }
}

static void overflow(void) {
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX / 2, 3}, {(size_t)1 << 33, (size_t)1 << 33}, {SIZE_MAX, SIZE_MAX},
        {((size_t)1 << 32) + 1, ((size_t)1 << 32) + 1}, {SIZE_MAX / 16 + 2, 16}, {PTRDIFF_MAX, 2},
    };
    for (int i = 0; i < 8; i++) {
        errno = 0;
        CHECK(calloc(opaque_size(pairs[i][0]), pairs[i][1]) == NULL && errno == ENOMEM);
    }
    size_t all = opaque_size(SIZE_MAX);
    void *none[] = {calloc(0, all), calloc(all, 0)};
    CHECK(none[0] != NULL && none[1] != NULL && none[0] != none[1]);
    give(none[0]), give(none[1]);
}

int main(void) {
    overflow();
    churn(1, 300, 100000);
    churn(2, 20000, 30000);
    churn(5, 50000, 50000);
    churn(3, 300000, 5000);
    same_size_again();
    churn(4, 9000, 70000);
    sound();
    return 0;
}
