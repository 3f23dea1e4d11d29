/* Random operations against a table of what must be true: contents kept, nothing overlaps, zero where
 * zero was asked for. */
#ifndef EXERCISE_H
#define EXERCISE_H

#include "tools.h"

enum { EXERCISE_BLOCKS = 2000 };

struct exercise {
    uint64_t state;
    struct {
        unsigned char *bytes;
        size_t size;
        unsigned char tag;
    } block[EXERCISE_BLOCKS];
};

/* Mostly small, at times a span, seldom a large block. */
static inline size_t exercise_size(uint64_t *state) {
    uint64_t kind = random_next(state) % 1000, n = random_next(state) >> 16;
    if (kind < 700) return n % 300;
    if (kind < 960) return n % 8200;
    if (kind < 998) return n % 60000;
    return n % 400000;
}

static inline void exercise_verify(const struct exercise *work, size_t i, size_t bytes) {
    CHECK(all_are(work->block[i].bytes, work->block[i].tag, bytes));
}

static inline unsigned char *exercise_take(uint64_t *state, size_t size) {
    unsigned char *block;
    void *aligned;
    switch (random_next(state) % 8) {
    case 0:
        block = calloc(1, size);
        CHECK(block != NULL && all_are(block, 0, size));
        return block;
    case 1:
        CHECK(posix_memalign(&aligned, 64, size) == 0 && (uintptr_t)aligned % 64 == 0);
        return aligned;
    default:
        block = malloc(size);
        CHECK(block != NULL && (uintptr_t)block % (size <= 8 ? 8 : 16) == 0);
        return block;
    }
}

/* One random operation on one random block. */
static inline void exercise_step(struct exercise *work) {
    size_t i = random_next(&work->state) % EXERCISE_BLOCKS, size = exercise_size(&work->state);
    unsigned char *old = work->block[i].bytes;
    if (old != NULL && random_next(&work->state) % 4 == 0) {
        size_t kept = size < work->block[i].size ? size : work->block[i].size;
        size += size == 0;
        work->block[i].bytes = realloc(old, size);
        CHECK(work->block[i].bytes != NULL);
        exercise_verify(work, i, kept);
    } else if (old != NULL) {
        exercise_verify(work, i, work->block[i].size);
        give(old);
        work->block[i].bytes = NULL;
        return;
    } else {
        work->block[i].bytes = exercise_take(&work->state, size);
    }
    work->block[i].size = size;
    work->block[i].tag = (unsigned char)random_next(&work->state);
    memset(work->block[i].bytes, work->block[i].tag, size);
}

/* Verifies and frees all that is left. */
static inline void exercise_end(struct exercise *work) {
    for (size_t i = 0; i < EXERCISE_BLOCKS; i++) {
        if (work->block[i].bytes == NULL) continue;
        exercise_verify(work, i, work->block[i].size);
        give(work->block[i].bytes);
        work->block[i].bytes = NULL;
    }
}

#endif
