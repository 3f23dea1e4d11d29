/* realloc keeps the address whenever the slot or the span has room and half of it is needed, moves to less room
 * otherwise, lets a span grow into free pages behind it, and brings the contents along when it must move. */
#include "tools.h"

static void within_its_room(size_t size) {
    unsigned char *block = take(size);
    size_t most = room(block);
    size_t turns[] = {most, size, (most + 1) / 2, size, most, (most + 1) / 2, most};
    memset(block, 0x3c, most);
    for (int i = 0; i < 7; i++) {
        CHECK(resize(block, turns[i]) == block);
        most = room(block); /* a span may have given its last pages back */
        CHECK(most >= turns[i] && all_are(block, 0x3c, turns[i]));
        memset(block, 0x3c, most);
        for (int j = i + 1; j < 7; j++) turns[j] = turns[j] < most ? turns[j] : most;
    }
    give(block);
}

/* Below half: at most twice what is needed and a little, or a span's three pages. */
static void to_less_room(size_t size) {
    size_t turns[] = {size / 3, size / 10 + 1, 1};
    for (int i = 0; i < 3; i++) {
        unsigned char *block = memset(take(size), 0x3c, size);
        block = resize(block, turns[i]);
        CHECK(room(block) >= turns[i] && all_are(block, 0x3c, turns[i]));
        CHECK(room(block) <= 2 * turns[i] + (turns[i] > 8192 ? 3 * PAGE_BYTES : 64));
        give(block);
    }
}

/* A block that grows back each time it shrank is soon left where it is. */
static void there_and_back(size_t size) {
    int moves = 0;
    unsigned char *block = take(size);
    for (int i = 0; i < 1000; i++) {
        memset(block, i & 0xff, size);
        void *before = block;
        block = resize(block, size / 5);
        moves += block != before;
        CHECK(all_are(block, (unsigned char)i, size / 5));
        block = resize(block, size);
        CHECK(all_are(block, (unsigned char)i, size / 5));
    }
    CHECK(moves < 100);
    give(block);
}

static void into_free_pages_behind(void) {
    unsigned char *block;
    int tries = 0;
    do { /* the break grows in batches: soon free pages lie behind the last span */
        block = take(40960);
        CHECK(++tries <= 200);
    } while ((unsigned char *)break_now() - (block + room(block)) < 8 * PAGE_BYTES);
    size_t size = room(block);
    memset(block, 0x3c, size);
    for (size_t free_end = (size_t)((unsigned char *)break_now() - block); size + PAGE_BYTES <= free_end;) {
        size_t more = size + PAGE_BYTES;
        if (more > 100000) break;
        CHECK(resize(block, more) == block);
        CHECK(room(block) >= more && all_are(block, 0x3c, size));
        memset(block, 0x3c, more);
        size = more;
    }
    give(block);
}

static void up_and_down(void) {
    for (int seed = 1; seed < 40; seed++) {
        uint64_t state = (uint64_t)seed;
        size_t size = 1;
        unsigned char *block = take(size);
        *block = 0x3c;
        for (int i = 0; i < 60; i++) {
            size_t next = i < 30 ? size * 3 / 2 + random_next(&state) % 100 : random_next(&state) % 2000000 + 1;
            block = resize(block, next);
            CHECK(block != NULL && room(block) >= next);
            CHECK(all_are(block, 0x3c, size < next ? size : next));
            memset(block, 0x3c, next);
            size = next;
        }
        give(block);
    }
}

int main(void) {
    into_free_pages_behind();
    for (size_t size = 1; size <= 8192; size += 13) within_its_room(size);
    for (size_t size = 8193; size <= 131072; size += 1357) within_its_room(size);
    for (size_t size = 1; size <= 400000; size = size * 3 / 2 + 1) to_less_room(size);
    for (size_t size = 500; size <= 8000; size *= 2) there_and_back(size);
    up_and_down();
    unsigned char *block = resize(NULL, 100);
    CHECK(block != NULL);
#ifdef PREFIXED
    block = resize(block, 0);
    CHECK(block != NULL);
#endif
    give(block);
    sound();
    return 0;
}
