/* usage: soak SECONDS - sixteen threads allocate, resize, exchange and free, threads come and go, processes
 * fork in the middle of it; the load swells and shrinks. Every block's bytes are checked before it goes, in
 * children too. Each second all threads park: every invariant is walked, and what is resident is held against
 * what is live. Says in the end what was done. */
#include "tools.h"

#include <pthread.h>
#include <sys/wait.h>

enum { WORKERS = 16, LIVE = 1500, SHELF = 512, PERIOD = 20 };

/* A live block; its bytes follow from its seed. */
struct block {
    unsigned char *at;
    size_t size;
    uint64_t seed;
};

/* What a worker has: it is handed on to the next one when the thread ends. */
static struct worker {
    pthread_t thread;
    struct block live[LIVE];
    uint64_t random;
    size_t bytes;
    unsigned long operations, remote, mayflies, forks;
    bool leaves;
} workers[WORKERS];

/* Blocks that any worker may take and free: records that lie in the heap themselves. */
static struct block *shelf[SHELF];
static pthread_barrier_t parked, released;
static bool park, over;
/* How much of its table a worker fills, of 16. */
static unsigned load;

enum { ENDS = 8192 };
static uint64_t *word_at(unsigned char *place) { return (uint64_t *)place; }

/* The middle of a large block is left alone, for speed, but for one word a page. */
static size_t next_word(size_t i, size_t size) {
    return i < ENDS || i + ENDS >= size ? i + 8 : i + PAGE_BYTES <= size - ENDS ? i + PAGE_BYTES : size - ENDS + (8 - (size - ENDS) % 8) % 8;
}

static void write_block(const struct block *block) {
    size_t size = block->size;
    for (size_t i = 0; i + 8 <= size; i = next_word(i, size)) *word_at(block->at + i) = block->seed + i * 0x9e3779b97f4a7c15ULL;
    for (size_t i = size & ~(size_t)7; i < size; i++) block->at[i] = (unsigned char)(block->seed + i);
}

/* The first `kept` bytes are as they were written when the block had `size`. */
static void check_block(const struct block *block, size_t kept) {
    size_t size = block->size;
    for (size_t i = 0; i + 8 <= size && i + 8 <= kept; i = next_word(i, size))
        CHECK(*word_at(block->at + i) == block->seed + i * 0x9e3779b97f4a7c15ULL);
    for (size_t i = size & ~(size_t)7; i < size && i < kept; i++) CHECK(block->at[i] == (unsigned char)(block->seed + i));
}

/* Mostly small, seldom large. */
static size_t any_size(uint64_t word) {
    static const size_t most[] = {32, 64, 128, 256, 1024, 1024, 8192, 8192};
    size_t size = most[word & 7];
    if ((word >> 3) % 64 == 0) size = 130000;
    if ((word >> 3) % 1024 == 1) size = 4 * MIB;
    return 1 + (word >> 16) % size;
}

static void keep(struct worker *me, struct block *block, unsigned char *at, size_t size) {
    CHECK(at != NULL && malloc_usable_size(at) >= size);
    *block = (struct block){at, size, random_next(&me->random)};
    me->bytes += size;
    write_block(block);
}

static void drop(struct worker *me, struct block *block) {
    if (block->at == NULL) return;
    check_block(block, block->size);
    me->bytes -= block->size;
    free(block->at);
    block->at = NULL;
    block->size = 0;
}

static void replace(struct worker *me, struct block *block, uint64_t word) {
    size_t size = any_size(word >> 8);
    void *aligned = NULL;
    drop(me, block);
    switch (word & 15) {
    case 0: {
        unsigned char *at = calloc(1, size);
        CHECK(at != NULL && all_are(at, 0, size));
        keep(me, block, at, size);
        break;
    }
    case 1: keep(me, block, aligned_alloc((size_t)16 << (word >> 4) % 9, size), size); break;
    case 2:
        CHECK(posix_memalign(&aligned, (size_t)8 << (word >> 4) % 14, size) == 0);
        keep(me, block, aligned, size);
        break;
    default: keep(me, block, malloc(size), size);
    }
}

static void resize_block(struct worker *me, struct block *block, uint64_t word) {
    size_t size = any_size(word >> 8);
    check_block(block, block->size);
    me->bytes -= block->size;
    struct block old = *block;
    block->at = word & 1 ? realloc(old.at, size) : reallocarray(old.at, 1, size);
    CHECK(block->at != NULL);
    old.at = block->at;
    /* What was sampled sparsely in the larger of the two is looked at as it was written. */
    check_block(&old, size < old.size ? size : old.size);
    keep(me, block, block->at, size);
}

/* Puts a block on the shelf for others, and frees what lay there. */
static void exchange(struct worker *me, struct block *block, uint64_t word) {
    struct block *record = malloc(sizeof *record);
    CHECK(record != NULL);
    *record = *block;
    me->bytes -= block->size;
    block->at = NULL;
    block->size = 0;
    record = __atomic_exchange_n(&shelf[(word >> 8) % SHELF], record, __ATOMIC_ACQ_REL);
    if (record == NULL) return;
    if (record->at != NULL) {
        check_block(record, record->size);
        free(record->at);
    }
    free(record);
    me->remote++;
}

/* A thread that lives for a hundred allocations, some of which its maker frees. */
static void *mayfly(void *argument) {
    struct worker me = {.random = (uint64_t)(uintptr_t)argument | 1};
    struct block *mine = calloc(100, sizeof *mine);
    CHECK(mine != NULL);
    for (int i = 0; i < 100; i++) replace(&me, &mine[i], random_next(&me.random) & ~0xffff0000ULL);
    for (int i = 0; i < 100; i += 2) drop(&me, &mine[i]);
    return mine;
}

static void hatch(struct worker *me) {
    pthread_t thread;
    void *left;
    CHECK(pthread_create(&thread, NULL, mayfly, (void *)(uintptr_t)random_next(&me->random)) == 0);
    CHECK(pthread_join(thread, &left) == 0);
    struct worker gone = {.bytes = SIZE_MAX / 2};
    for (int i = 1; i < 100; i += 2) drop(&gone, (struct block *)left + i);
    free(left);
    me->mayflies++;
}

static void one_operation(struct worker *me);

/* A child in the middle of it: all that this thread has is there, and the heap serves. */
static void fork_one(struct worker *me) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        sound();
        park = false;
        for (int i = 0; i < 300; i++) one_operation(me);
        for (int i = 0; i < LIVE; i++) drop(me, &me->live[i]);
        sound();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    me->forks++;
}

static void one_operation(struct worker *me) {
    uint64_t word = random_next(&me->random);
    size_t filled = LIVE * load / 16;
    struct block *block = &me->live[(word >> 32) % LIVE];
    me->operations++;
    if ((size_t)(block - me->live) >= filled || word % 16 == 0) drop(me, block);
    else if (block->at != NULL && word % 16 < 4) resize_block(me, block, word >> 4);
    else if (block->at != NULL && word % 16 < 6) exchange(me, block, word >> 4);
    else replace(me, block, word >> 4);
}

static void *work(void *argument) {
    struct worker *me = argument;
    for (;;) {
        if (__atomic_load_n(&park, __ATOMIC_ACQUIRE)) {
            pthread_barrier_wait(&parked);
            pthread_barrier_wait(&released);
            if (me->leaves || over) return NULL;
        }
        one_operation(me);
        if (me->operations % 20000 == 0) hatch(me);
        if (me->operations % 200000 == 0) fork_one(me);
    }
}

static void start(struct worker *me) {
    me->leaves = false;
    CHECK(pthread_create(&me->thread, NULL, work, me) == 0);
}

static size_t shelved(void) {
    size_t bytes = 0;
    for (int i = 0; i < SHELF; i++) bytes += shelf[i] == NULL ? 0 : shelf[i]->size;
    return bytes;
}

static size_t owned(void) {
    size_t bytes = 0;
    for (int i = 0; i < WORKERS; i++) bytes += __atomic_load_n(&workers[i].bytes, __ATOMIC_RELAXED);
    return bytes;
}

/* What is resident comes from the highest loads, which a look each second misses: the most that was live in the
 * second that goes by, but for what lay on the shelf. */
static size_t most_owned_in_a_second(void) {
    size_t most = 0;
    for (int i = 0; i < 500; i++) {
        wait_ms(2);
        size_t bytes = owned();
        if (bytes > most) most = bytes;
    }
    return most;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long seconds = atol(argv[1]);
    size_t walks = 0, replaced = 0, most_live = 0, most_resident = 0, worst_excess = 0;
    small_pages_only();
    CHECK(pthread_barrier_init(&parked, NULL, WORKERS + 1) == 0);
    CHECK(pthread_barrier_init(&released, NULL, WORKERS + 1) == 0);
    load = 16;
    for (int i = 0; i < WORKERS; i++) {
        workers[i].random = 1 + (uint64_t)i;
        start(&workers[i]);
    }
    for (long second = 1; second <= seconds; second++) {
        size_t most_owned = most_owned_in_a_second();
        __atomic_store_n(&park, true, __ATOMIC_RELEASE);
        pthread_barrier_wait(&parked);
        sound();
        walks++;
        size_t live = shelved() + owned(), resident = resident_bytes();
        if (shelved() + most_owned > most_live) most_live = shelved() + most_owned;
        if (resident > most_resident) most_resident = resident;
        if (resident > live && resident - live > worst_excess) worst_excess = resident - live;
        dprintf(STDERR_FILENO, "%ld s: live %zu MiB, resident %zu MiB\n", second, live / MIB, resident / MIB);
        /* Every second another thread's part goes to a fresh thread; the load swells and shrinks. */
        workers[second % WORKERS].leaves = true;
        over = second == seconds;
        load = second % PERIOD < PERIOD / 2 ? 16 : 2;
        __atomic_store_n(&park, false, __ATOMIC_RELEASE);
        pthread_barrier_wait(&released);
        for (int i = 0; i < WORKERS; i++) {
            if (!workers[i].leaves && !over) continue;
            CHECK(pthread_join(workers[i].thread, NULL) == 0);
            if (!over) start(&workers[i]);
            replaced++;
        }
    }
    unsigned long operations = 0, remote = 0, mayflies = 0, forks = 0;
    for (int i = 0; i < WORKERS; i++) {
        for (int n = 0; n < LIVE; n++) drop(&workers[i], &workers[i].live[n]);
        CHECK(workers[i].bytes == 0);
        operations += workers[i].operations;
        remote += workers[i].remote;
        mayflies += workers[i].mayflies;
        forks += workers[i].forks;
    }
    for (int i = 0; i < SHELF; i++) {
        if (shelf[i] == NULL) continue;
        check_block(shelf[i], shelf[i]->size);
        free(shelf[i]->at);
        free(shelf[i]);
    }
    sound();
    for (int i = 0; i < 3; i++) { /* time goes by, and slow paths notice it */
        wait_ms(600);
        for (size_t size = 16; size < MIB; size *= 2) give(take(size));
        for (int n = 0; n < 3000; n++) give(take(20000));
    }
    sound();
    dprintf(STDOUT_FILENO,
            "seconds %ld, operations %lu, frees of another's %lu, threads %zu and %lu brief ones, forks %lu, walks "
            "%zu, most live %zu MiB, most resident %zu MiB, most above live %zu MiB, resident after all is freed %zu KiB\n",
            seconds, operations, remote, replaced + WORKERS, mayflies, forks, walks, most_live / MIB,
            most_resident / MIB, worst_excess / MIB, resident_bytes() / KIB);
    CHECK(most_resident <= 2 * most_live + 64 * MIB);
    CHECK(resident_bytes() <= 48 * MIB);
    return 0;
}
