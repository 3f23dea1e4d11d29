/* usage: heaps PART - first-class heaps: what they hold goes with them, from whatever thread it came. */
#include "../tools.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { MANY = 20000, THREADS = 8 };
static slabside_heap *heap;

static size_t random_size(uint64_t *seed) {
    uint64_t n = random_next(seed);
    return n % 100 < 95 ? n % 2000 : n % 100 < 99 ? 8000 + n % 100000 : 200000 + n % 300000;
}

static void fill(slabside_heap *in, size_t count, uint64_t seed) {
    for (size_t i = 0; i < count; i++) {
        size_t size = random_size(&seed);
        unsigned char *block = i % 2 ? slabside_heap_malloc(in, size) : slabside_heap_calloc(in, 1, size);
        CHECK(block != NULL && (i % 2 || all_are(block, 0, size)));
        memset(block, 0xab, size);
    }
}

/* All is given back: the figures are as before, however often. */
static void at_once(void) {
    heap = slabside_heap_create();
    fill(heap, 1000, 1);
    slabside_heap_destroy(heap);
    struct slabside_stats before = figures();
    for (int round = 0; round < 10; round++) {
        heap = slabside_heap_create();
        fill(heap, MANY / 10, 3 + (uint64_t)round);
        CHECK(figures().live > before.live + MIB);
        sound();
        slabside_heap_destroy(heap);
        struct slabside_stats after = figures();
        CHECK(after.live == before.live && after.slabs == before.slabs);
        CHECK(after.spans == before.spans && after.large == before.large);
        sound();
    }
    slabside_heap_destroy(NULL);
}

/* Blocks can be given back one by one as well, by any free. */
static void one_by_one(void) {
    heap = slabside_heap_create();
    static void *block[MANY];
    for (int round = 0; round < 3; round++) {
        uint64_t seed = 9;
        for (int i = 0; i < MANY / 10; i++) block[i] = slabside_heap_malloc(heap, random_size(&seed));
        shuffle(block, MANY / 10, 5);
        for (int i = 0; i < MANY / 10; i++) give(block[i]);
        sound();
    }
    /* What was given back is used again, and does not pile up. */
    size_t held = figures().break_bytes;
    for (int i = 0; i < 50 * MANY; i++) give(slabside_heap_malloc(heap, 100));
    CHECK(figures().break_bytes <= held + 64 * KIB);
    slabside_heap_destroy(heap);
    sound();
}

static void *work(void *number) {
    uint64_t seed = (uintptr_t)number + 1;
    void *held[50] = {0};
    for (int i = 0; i < 10000; i++) {
        int at = (int)(random_next(&seed) % 50);
        size_t size = random_next(&seed) % 3000;
        if (held[at] != NULL) CHECK(all_are(held[at], (unsigned char)seed, 0));
        if (i % 3 == 0)
            held[at] = slabside_heap_realloc(heap, held[at], size);
        else {
            give(held[at]);
            held[at] = slabside_heap_malloc(heap, size);
        }
        CHECK(held[at] != NULL);
        memset(held[at], (int)at, size);
    }
    return NULL; /* what is held goes with the heap */
}
static void in_threads(void) {
    size_t live = figures().live;
    heap = slabside_heap_create();
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++) CHECK(pthread_create(&thread[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    sound();
    slabside_heap_destroy(heap);
    sound();
    CHECK(figures().live <= live + 64 * KIB); /* the C library's thread blocks */
}

/* Threads that exit leave the heap's slabs alone, and free into them to the last. */
static void *leave(void *block) {
    void **of = block;
    for (int i = 0; i < 1000; i++) give(of[i]);
    return take(100);
}
static void freed_by_threads_that_exit(void) {
    heap = slabside_heap_create();
    static void *block[THREADS][1000];
    for (int round = 0; round < 5; round++) {
        pthread_t thread[THREADS];
        for (int i = 0; i < THREADS; i++) {
            for (int j = 0; j < 1000; j++) block[i][j] = slabside_heap_malloc(heap, 64);
            CHECK(pthread_create(&thread[i], NULL, leave, block[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            void *left;
            pthread_join(thread[i], &left);
            give(left);
        }
        sound();
    }
    slabside_heap_destroy(heap);
    sound();
}

static void resizing(void) {
    heap = slabside_heap_create();
    slabside_heap *other = slabside_heap_create();
    CHECK(heap != other);
    for (size_t size = 1; size < 2 * MIB; size = size * 3 + 1) {
        unsigned char *block = memset(slabside_heap_malloc(heap, size), 0x77, size);
        block = slabside_heap_realloc(heap, block, 2 * size + 100);
        CHECK(all_are(block, 0x77, size) && room(block) >= 2 * size + 100);
        block = slabside_heap_realloc(other, block, size); /* moves house */
        CHECK(all_are(block, 0x77, size));
    }
    unsigned char *common = memset(take(500000), 0x66, 500000);
    common = slabside_heap_realloc(other, common, 600000);
    CHECK(all_are(common, 0x66, 500000));
    slabside_heap_destroy(heap);
    CHECK(all_are(common, 0x66, 500000));
    sound();
    CHECK(figures().large >= 1);
    slabside_heap_destroy(other);
    CHECK(figures().large == 0);
    sound();
}

static void alignments(void) {
    heap = slabside_heap_create();
    for (size_t align = 1; align <= MIB; align *= 2)
        for (size_t size = 0; size < 300000; size = size * 3 + 1)
            CHECK((uintptr_t)slabside_heap_aligned_alloc(heap, align, size) % align == 0);
    errno = 0;
    CHECK(slabside_heap_aligned_alloc(heap, opaque_size(24), 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(slabside_heap_malloc(heap, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(slabside_heap_calloc(heap, opaque_size(SIZE_MAX / 2), 4) == NULL && errno == ENOMEM);
    void *kept = slabside_heap_malloc(heap, 0);
    CHECK(kept != NULL && kept != slabside_heap_malloc(heap, 0));
    errno = 0;
    CHECK(slabside_heap_realloc(heap, kept, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    slabside_heap_destroy(heap);
    sound();
}

/* A child has the heap as it was, and may go on with it and destroy it; also where another thread was in
 * the middle of using it. */
static volatile int stop;
static void *keep_busy(void *unused) {
    while (!stop) give(slabside_heap_malloc(heap, 50));
    return unused;
}
static void forked(void) {
    heap = slabside_heap_create();
    fill(heap, 500, 11);
    char *kept = strcpy(slabside_heap_malloc(heap, 100), "kept");
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, keep_busy, NULL) == 0);
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(!strcmp(kept, "kept"));
            fill(heap, 100, 12);
            give(kept);
            sound();
            slabside_heap_destroy(heap);
            sound();
            slabside_heap *fresh = slabside_heap_create();
            CHECK(fresh != heap);
            fill(fresh, 100, 13);
            sound();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    CHECK(!strcmp(kept, "kept"));
    sound();
    slabside_heap_destroy(heap);
    sound();
}

/* Many at a time, each apart from the others. */
static void many(void) {
    static slabside_heap *of[1000];
    static int *block[1000];
    for (int i = 0; i < 1000; i++) {
        of[i] = slabside_heap_create();
        CHECK(of[i] != NULL);
        *(block[i] = slabside_heap_malloc(of[i], sizeof(int))) = i;
    }
    for (int i = 0; i < 1000; i += 2) slabside_heap_destroy(of[i]);
    for (int i = 1; i < 1000; i += 2) CHECK(*block[i] == i);
    sound();
    for (int i = 1; i < 1000; i += 2) slabside_heap_destroy(of[i]);
    /* One after the other: none is left behind. */
    size_t metadata = figures().metadata;
    for (int i = 0; i < 50000; i++) {
        heap = slabside_heap_create();
        slabside_heap_malloc(heap, 24);
        slabside_heap_destroy(heap);
    }
    CHECK(figures().metadata == metadata);
    sound();
}

/* Where memory runs out: null, and all can still be given back. */
static void short_of_memory(void) {
    struct rlimit limit = {200 * MIB, 200 * MIB};
    give(take(1));
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    for (int round = 0; round < 3; round++) {
        heap = slabside_heap_create();
        size_t count = 0;
        errno = 0;
        while (slabside_heap_malloc(heap, round == 2 ? 200000 : 5000) != NULL) count++;
        CHECK(errno == ENOMEM && count > 100);
        slabside_heap_destroy(heap);
        sound();
        char *block = take(50 * MIB);
        CHECK(block != NULL);
        give(block);
    }
}

/* Misuses, each of which ends the program. */
static void object_of_a_destroyed_heap(void) {
    heap = slabside_heap_create();
    void *block = slabside_heap_malloc(heap, 100);
    slabside_heap_destroy(heap);
    give(block);
}
static void large_object_of_a_destroyed_heap(void) {
    heap = slabside_heap_create();
    void *block = slabside_heap_malloc(heap, 5000000);
    slabside_heap_destroy(heap);
    give(block);
}
static void destroyed_heap(void) {
    heap = slabside_heap_create();
    slabside_heap_destroy(heap);
    slabside_heap_create(); /* takes the same place */
    slabside_heap_malloc(heap, 100);
}
static void destroyed_twice(void) {
    heap = slabside_heap_create();
    slabside_heap_destroy(heap);
    slabside_heap_destroy(heap);
}
static void never_created(void) { slabside_heap_malloc((slabside_heap *)&heap, 100); }
static void none(void) { slabside_heap_malloc(NULL, 100); }
static void twice(void) {
    heap = slabside_heap_create();
    void *block = slabside_heap_malloc(heap, 100);
    slabside_heap_malloc(heap, 100);
    give(block);
    give(block);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"at-once", at_once},
                {"one-by-one", one_by_one},
                {"threads", in_threads},
                {"exit", freed_by_threads_that_exit},
                {"resizing", resizing},
                {"alignments", alignments},
                {"fork", forked},
                {"many", many},
                {"limit", short_of_memory},
                {"object", object_of_a_destroyed_heap},
                {"large-object", large_object_of_a_destroyed_heap},
                {"destroyed", destroyed_heap},
                {"destroyed-twice", destroyed_twice},
                {"never-created", never_created},
                {"null", none},
                {"double-free", twice}};
    CHECK(argc == 2);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (!strcmp(argv[1], part[i].name)) {
            part[i].run();
            return 0;
        }
    CHECK(!"a part");
}
