/* usage: locality words|pairs|slabs|single - the order in which freed slots are taken again: round the words of a
 * slab, and the slabs in the order in which they got free slots. */
#include "tools.h"

enum { FIRST = 4096, APART = 1024, GROUPS = 15, COUNT = FIRST + APART * GROUPS };
static void *object[COUNT];

/* In the first slab, of one page: the next word with a free slot comes next, in a circle, and in a word
 * the lowest slot. */
static void words(size_t size) {
    enum { LIVE = 100 };
    int slots = (int)(PAGE_BYTES / size), last = -1;
    bool is_free[512];
    void *live[LIVE];
    uint64_t state = 1;
    for (int i = 0; i < LIVE; i++) live[i] = take(size);
    char *page = (char *)((uintptr_t)live[0] & -(uintptr_t)PAGE_BYTES);
    for (int i = 0; i < slots; i++) is_free[i] = true;
    for (int i = 0; i < LIVE; i++) is_free[((char *)live[i] - page) / (ptrdiff_t)size] = false;
    last = (int)(((char *)live[LIVE - 1] - page) / (ptrdiff_t)size);
    for (int i = 1; i <= 100000; i++) {
        void **place = &live[random_next(&state) % LIVE];
        int gone = (int)(((char *)*place - page) / (ptrdiff_t)size);
        give(*place);
        *place = take(size);
        int came = (int)(((char *)*place - page) / (ptrdiff_t)size);
        CHECK(came >= 0 && came < slots && (is_free[came] || came == gone));
        if (came / 64 != last / 64) { /* every word passed over had nothing free before this call */
            for (int word = (last / 64 + 1) % (slots / 64); word != came / 64; word = (word + 1) % (slots / 64))
                for (int bit = 0; bit < 64; bit++) CHECK(!is_free[word * 64 + bit]);
        } else { /* the word was not begun anew: what was freed since it was begun is not taken */
            CHECK(came > last || slots == 64);
        }
        is_free[gone] = true;
        is_free[came] = false;
        last = came;
    }
}

/* With one object live, a pair of malloc and free goes through all slots of the slab before one comes
 * again. */
static void pairs(size_t size) {
    static bool seen[512];
    memset(seen, 0, sizeof seen);
    int slots = (int)(PAGE_BYTES / size);
    char *kept = take(size), *page = (char *)((uintptr_t)kept & -(uintptr_t)PAGE_BYTES);
    seen[(kept - page) / (ptrdiff_t)size] = true;
    for (int i = 1; i < slots; i++) {
        char *block = take(size);
        ptrdiff_t slot = (block - page) / (ptrdiff_t)size;
        CHECK(slot >= 0 && slot < slots && !seen[slot]);
        seen[slot] = true;
        give(block);
    }
    give(kept);
}

/* Frees every `stride`-th object of each group, the groups in a random order, and expects the middle of
 * each group, where the slabs lie that have nothing of another group, in that order again. */
static void slabs(size_t stride) {
    void *order[GROUPS];
    for (size_t i = 0; i < COUNT; i++) object[i] = take(64);
    for (size_t i = 0; i < GROUPS; i++) order[i] = &object[FIRST + APART * i];
    shuffle(order, GROUPS, 5);
    for (size_t i = 0; i < GROUPS; i++)
        for (size_t j = stride / 2; j < APART; j += stride) give(((void **)order[i])[j]);
    size_t slabs_before = figures().slabs, met = 0, expected = 0;
    for (size_t i = 0, group = 0; met < GROUPS && i < COUNT; i++) {
        void *block = take(64), **freed = NULL;
        for (size_t j = 0; j < GROUPS && freed == NULL; j++) {
            size_t low = stride < APART ? APART / 4 : 0, high = stride < APART ? APART * 3 / 4 : APART;
            for (size_t k = low; k < high; k++)
                if (((void **)order[j])[k] == block) freed = order[group = j];
        }
        if (freed == NULL) continue;
        CHECK(group == expected || group == expected + 1 || (met == 0 && group == 0));
        met += met == 0 || group != expected;
        expected = group;
    }
    CHECK(met == GROUPS && figures().slabs <= slabs_before);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "words") == 0) {
        for (size_t size = 8; size <= 16; size *= 2) words(size);
    } else if (strcmp(argv[1], "pairs") == 0) {
        for (size_t size = 8; size <= 64; size *= 2) pairs(size);
    } else {
        slabs(strcmp(argv[1], "single") == 0 ? APART : 2);
    }
    return 0;
}
