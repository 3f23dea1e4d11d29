/* usage: features FEATURE... - one exercise for all features, which the options add to:
 *
 *   heaps     half of the blocks come from two first-class heaps, which end and begin anew all the time
 *   fork      children are forked while the threads are at work, and go on with what there is
 *   _fork     the same by _Fork, which runs no handlers
 *   rlimit    RLIMIT_AS leaves room for a part of the requests
 *   refused   the kernel refuses mmap, mremap, mprotect and madvise from some point on
 *   limited   requests may fail, for a reason that the options know
 *
 * Three threads play random operations on blocks of all sizes, some of which they free for each other. No block's
 * bytes may change, no request fail without a reason, and the books balance in the end. */
#include "filter.h"
#include "tools.h"

#include <linux/audit.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { THREADS = 3, BLOCKS = 30, ROUNDS = 8, STEPS = 250, HEAPS = 2, SHARED = 16, CHILDREN = 3 };
static bool heaps, forks, direct_forks, rlimit, refused, limited;

struct block {
    unsigned char *at;
    size_t size;
    int heap; /* the first-class heap that it goes with, plus one; 0: none */
};

struct part {
    struct block block[BLOCKS];
    slabside_heap *heap[HEAPS];
    uint64_t random;
};
static struct part parts[THREADS];

/* What threads leave for each other to free. */
static _Atomic(void *) shared[SHARED];

static const size_t most[] = {16, 100, 1000, 4000, 8192, 40000, 150000, 400000};

static void fill(struct part *part, size_t n, void *at, size_t size, int heap) {
    if (at == NULL) {
        CHECK(limited && errno == ENOMEM);
        size = 0;
    }
    part->block[n] = (struct block){at, size, heap};
    if (at != NULL) memset(at, (int)n + 1, size);
}

static void check(const struct part *part, size_t n) {
    const struct block *block = &part->block[n];
    CHECK(all_are(block->at, (unsigned char)(n + 1), block->size));
}

static void drop(struct part *part, size_t n) {
    check(part, n);
    free(part->block[n].at);
    part->block[n] = (struct block){0};
}

static void begin_heaps(struct part *part) {
    for (int i = 0; i < HEAPS && heaps; i++) {
        part->heap[i] = slabside_heap_create();
        CHECK(part->heap[i] != NULL || limited);
    }
}

/* A heap ends with all of its blocks, and another one begins. */
static void renew(struct part *part, int heap) {
    for (size_t n = 0; n < BLOCKS; n++) {
        if (part->block[n].heap != heap) continue;
        check(part, n);
        part->block[n] = (struct block){0};
    }
    slabside_heap_destroy(part->heap[heap - 1]);
    part->heap[heap - 1] = slabside_heap_create();
    CHECK(part->heap[heap - 1] != NULL || limited);
}

/* The heap that a new block is to come from: its number, or 0. */
static int choose(struct part *part, uint64_t word) {
    int heap = heaps && word >> 40 & 1 ? 1 + (int)(word >> 41 & 1) : 0;
    return heap != 0 && part->heap[heap - 1] != NULL ? heap : 0;
}

static void *get(struct part *part, int heap, uint64_t word, size_t size) {
    slabside_heap *of = heap == 0 ? NULL : part->heap[heap - 1];
    size_t align = (size_t)16 << (word >> 44 & 7);
    errno = 0;
    switch (word >> 48 & 3) {
    case 0: {
        unsigned char *block = of == NULL ? calloc(1, size) : slabside_heap_calloc(of, 1, size);
        CHECK(block == NULL || all_are(block, 0, size));
        return block;
    }
    case 1: {
        void *block = of == NULL ? aligned_alloc(align, size) : slabside_heap_aligned_alloc(of, align, size);
        CHECK((uintptr_t)block % align == 0);
        return block;
    }
    default: return of == NULL ? malloc(size) : slabside_heap_malloc(of, size);
    }
}

static void resize_one(struct part *part, size_t n, uint64_t word, size_t size) {
    struct block *block = &part->block[n];
    slabside_heap *of = block->heap == 0 ? NULL : part->heap[block->heap - 1];
    bool stays = of != NULL && word >> 50 & 1;
    if (of != NULL && !stays) return; /* whether it leaves its heap is not known */
    errno = 0;
    unsigned char *at = stays ? slabside_heap_realloc(of, block->at, size) : realloc(block->at, size);
    size_t kept = size < block->size ? size : block->size;
    if (at == NULL) {
        CHECK(limited && errno == ENOMEM);
        check(part, n);
        return;
    }
    CHECK(all_are(at, (unsigned char)(n + 1), kept));
    fill(part, n, at, size, block->heap);
}

static void step(struct part *part) {
    uint64_t word = random_next(&part->random);
    size_t n = word % BLOCKS, size = 1 + (word >> 20) % most[word >> 8 & 7];
    switch (word >> 12 & 7) {
    case 0:
    case 1:
        if (part->block[n].at != NULL) resize_one(part, n, word, size);
        break;
    case 2: drop(part, n); break;
    case 3: /* Another thread frees it. */
        check(part, n);
        if (part->block[n].heap == 0) {
            free(atomic_exchange(&shared[word >> 52 & (SHARED - 1)], part->block[n].at));
            part->block[n] = (struct block){0};
        }
        break;
    default: {
        drop(part, n);
        int heap = choose(part, word);
        fill(part, n, get(part, heap, word, size), size, heap);
    }
    }
}

static void clear(struct part *part) {
    for (size_t n = 0; n < BLOCKS; n++) drop(part, n);
    for (int i = 0; i < HEAPS && heaps; i++) slabside_heap_destroy(part->heap[i]);
    memset(part->heap, 0, sizeof part->heap);
}

static void play(struct part *part) {
    for (int i = 0; i < STEPS; i++) step(part);
    if (heaps) renew(part, 1 + (int)(random_next(&part->random) % HEAPS));
}

/* In a child: the forking thread's blocks are whole, and it goes on with them. */
static void child(struct part *part) {
    for (size_t n = 0; n < BLOCKS; n++) check(part, n);
    play(part);
    clear(part);
    for (int i = 0; i < SHARED; i++) free(atomic_exchange(&shared[i], NULL));
    malloc_trim(0);
    sound();
    _exit(0);
}

static void fork_one(struct part *part, pid_t (*way)(void)) {
    pid_t process = way();
    if (process < 0) {
        CHECK(limited);
        return;
    }
    if (process == 0) child(part);
    int status;
    CHECK(waitpid(process, &status, 0) == process);
    if (status != 0) {
        dprintf(STDERR_FILENO, "a child ended with %#x\n", status);
        _exit(1);
    }
}

static pthread_barrier_t meeting;
static void *work(void *of) {
    struct part *part = of;
    begin_heaps(part);
    for (int round = 0; round < ROUNDS; round++) {
        play(part);
        if (round == ROUNDS / 2) {
            pthread_barrier_wait(&meeting); /* a limit begins */
            pthread_barrier_wait(&meeting);
        }
        if (part != &parts[0] || round % 3 != 1) continue;
        if (forks) fork_one(part, fork);
        if (direct_forks) fork_one(part, _Fork);
    }
    clear(part);
    return NULL;
}

static void limit_space(void) {
    size_t bytes = mapped_bytes() + 4 * MIB;
    struct rlimit limit = {bytes, bytes};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* From now on the kernel refuses the calls to all threads. */
static void refuse(void) {
    static const unsigned numbers[] = {SYS_mmap, SYS_mremap, SYS_mprotect, SYS_madvise};
    enum { CALLS = sizeof numbers / sizeof *numbers };
    struct sock_filter code[2 * CALLS + 2];
    unsigned short n = 0;
    code[n++] = (struct sock_filter)LOAD_NUMBER;
    for (int i = 0; i < CALLS; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    install_filter(code, n, SECCOMP_FILTER_FLAG_TSYNC);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        bool *is_on;
    } feature[] = {{"heaps", &heaps},   {"fork", &forks},      {"_fork", &direct_forks},
                   {"rlimit", &rlimit}, {"refused", &refused}, {"limited", &limited}};
    for (int i = 1; i < argc; i++) {
        size_t at = 0;
        while (strcmp(feature[at].name, argv[i]) != 0) CHECK(++at < sizeof feature / sizeof *feature);
        *feature[at].is_on = true;
    }
    limited |= rlimit | refused;
    pthread_t thread[THREADS];
    CHECK(pthread_barrier_init(&meeting, NULL, THREADS + 1) == 0);
    for (int i = 0; i < THREADS; i++) {
        parts[i].random = 1 + (uint64_t)i;
        CHECK(pthread_create(&thread[i], NULL, work, &parts[i]) == 0);
    }
    pthread_barrier_wait(&meeting);
    if (rlimit) limit_space();
    if (refused) refuse();
    pthread_barrier_wait(&meeting);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < SHARED; i++) free(atomic_exchange(&shared[i], NULL));
    sound();
    malloc_trim(0);
    sound();
    return 0;
}
