/* What the thread and fork programs share: blocks that know their contents, a table of slots through
 * which threads hand them on, and threads with small stacks. */
#ifndef WORK_H
#define WORK_H

#include "../tools.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* A block that says how large it is and what its bytes are; the least is its head alone. */
struct block {
    uint32_t size;
    uint32_t seed;
    unsigned char bytes[];
};

/* Bytes checked of a large block: enough to touch every page. */
static inline uint32_t stride(uint32_t size) { return size > 4096 ? 509 : 1; }

static inline void block_fill(struct block *b, uint32_t size, uint32_t seed) {
    b->size = size;
    b->seed = seed;
    for (uint32_t i = 0; i + sizeof *b < size; i += stride(size)) b->bytes[i] = (unsigned char)(seed + i * 7);
}

/* Ends the program unless the first `kept` bytes are still what block_fill wrote. */
static inline void block_verify_prefix(const struct block *b, uint32_t kept) {
    CHECK(kept <= b->size);
    for (uint32_t i = 0; i + sizeof *b < kept; i += stride(b->size))
        CHECK(b->bytes[i] == (unsigned char)(b->seed + i * 7));
}

/* A filled block of `size` bytes, at least a head, by the allocation function that `how` picks. */
static inline struct block *block_new(uint32_t size, uint64_t how) {
    struct block *b;
    if (size < sizeof *b) size = sizeof *b;
    switch (how % 16) {
    case 0:
        b = calloc(1, size);
        CHECK(b != NULL && b->size == 0 && b->seed == 0);
        break;
    case 1:
        b = aligned_alloc(64, size);
        CHECK((uintptr_t)b % 64 == 0);
        break;
    default:
        b = malloc(size);
    }
    CHECK(b != NULL);
    CHECK((uintptr_t)b % (size > 8 ? 16 : 8) == 0);
    block_fill(b, size, (uint32_t)how);
    return b;
}

/* Checks the whole block and frees it; NULL is ignored. */
static inline void block_end(struct block *b) {
    if (b == NULL) return;
    block_verify_prefix(b, b->size);
    free(b);
}

/* A size as programs ask for them: mostly small, at times a span, seldom a large block. */
static inline uint32_t random_size(uint64_t *state) {
    uint32_t r = (uint32_t)(random_next(state) % 1000), n = (uint32_t)(random_next(state) >> 20);
    if (r < 800) return 8 + n % 505;
    if (r < 970) return 8 + n % 8185;
    if (r < 997) return 8 + n % 120000;
    return 8 + n % 600000;
}

/* Slots through which threads hand blocks on: whoever takes a block out of one owns it. */
typedef _Atomic(struct block *) slot;

/* Empties the slots, and checks and frees what lay in them. */
static inline void slots_end(slot *slots, size_t count) {
    for (size_t i = 0; i < count; i++) block_end(atomic_exchange(&slots[i], NULL));
}

/* Starts a thread with a small stack, so that many fit. */
static inline pthread_t thread_start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 128 * 1024) == 0);
    int failed = pthread_create(&thread, &attributes, run, argument);
    CHECK(failed == 0);
    pthread_attr_destroy(&attributes);
    return thread;
}

static inline void thread_end(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

#endif
