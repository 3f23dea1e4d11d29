/* usage: limits hard BYTES | soft BYTES - takes blocks of many sizes until there are no more (hard), or swells
 * and empties itself above the limit (soft), where nothing that is freed stays resident. */
#include "../tools.h"

static size_t footprint(void) {
    return figures().break_bytes + figures().mapped;
}

static size_t take_all(size_t size, void **list) {
    size_t count = 0;
    void **block;
    errno = 0;
    while ((block = take(size)) != NULL) {
        *block = *list;
        *list = block;
        count++;
        CHECK(footprint() <= 8 * MIB);
        errno = 0;
    }
    CHECK(errno == ENOMEM);
    return count;
}

static void give_all(void **list) {
    while (*list != NULL) {
        void **block = *list;
        *list = *block;
        give(block);
    }
}

static void hard(void) {
    size_t sizes[] = {16, 500, 5000, 30000, 200000, 3000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *list = NULL;
        size_t count = take_all(sizes[i], &list);
        CHECK(count * sizes[i] >= 5 * MIB);
        CHECK(take(9 * MIB) == NULL && resize(list, 9 * MIB) == NULL && errno == ENOMEM);
        give_all(&list);
        sound();
    }
    void *grown = take(MIB);
    CHECK(grown != NULL && (grown = resize(grown, 6 * MIB)) != NULL);
    CHECK(resize(grown, 9 * MIB) == NULL);
    grown = resize(grown, MIB);
    CHECK(grown != NULL && (grown = resize(grown, 7 * MIB)) != NULL);
    give(grown);
}

static void soft(void) {
    static void *blocks[200];
    small_pages_only();
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 200; i++) {
            blocks[i] = take(200000);
            memset(blocks[i], 1, 200000);
        }
        for (int i = 0; i < 200; i++) give(blocks[i]);
    }
    void *last = take(20 * MIB); /* above the limit: what is kept goes */
    CHECK(last != NULL);
    give(take(150000));
    CHECK(footprint() < 24 * MIB);
    give(last);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "hard") == 0) hard();
    else soft();
    sound();
    return 0;
}
