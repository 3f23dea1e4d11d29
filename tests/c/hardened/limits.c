/* limits HOW LARGEST PEAK [ROOM]: 40 MB are live all the time while sizes change. At most PEAK KiB are ever resident. With
 * ROOM the process limits its address space to so many MiB beyond what is mapped at its start.
 *
 * phases: all blocks have one size, then block by block another one, up to LARGEST bytes
 * again: as phases, but all are freed before
 * mixed: blocks of random sizes up to LARGEST take each other's place at random */
#include "../tools.h"

#include <sys/resource.h>

enum { LIVE = 40000000 };
static size_t live;

static void *filled(size_t size) {
    void *p = take(size);
    CHECK(p != NULL);
    live += size;
    return memset(p, 1, size);
}

static void drop(void *p, size_t size) {
    give(p);
    live -= size;
}

/* Blocks of one size: each knows the next younger one. */
struct queue {
    void **oldest, **youngest;
    size_t size;
};

static void push(struct queue *queue) {
    void **p = filled(queue->size);
    *p = NULL;
    *(queue->oldest ? queue->youngest : (void **)&queue->oldest) = (void *)p;
    queue->youngest = p;
}

static void pop(struct queue *queue) {
    void **p = queue->oldest;
    queue->oldest = *p;
    drop(p, queue->size);
}

static void phases(size_t largest, bool at_once) {
    /* What takes most headers comes first: no room is left for those under a limit that pages have used up. */
    static const size_t sizes[] = {9000, 4000, 64, 1000, 2000, 256, 3000, 512, 6000, 20000, 12000, 100000, 50000, 70000};
    struct queue old = {0};
    for (int i = 0; i < 28; i++) {
        struct queue fresh = {.size = sizes[i % 14]};
        if (fresh.size > largest) continue;
        while (at_once && old.oldest) pop(&old);
        for (size_t made = 0; made < LIVE / fresh.size; made++) {
            while (old.oldest && live + fresh.size > LIVE) pop(&old);
            push(&fresh);
        }
        while (old.oldest) pop(&old);
        old = fresh;
    }
}

static void mixed(size_t largest) {
    enum { MOST = 1 << 17 };
    static void *block[MOST];
    static size_t size[MOST];
    uint64_t seed = 7;
    size_t count = 0;
    for (; live < LIVE - largest; count++) block[count] = filled(size[count] = 1 + random_next(&seed) % largest);
    for (size_t done = 0; done < 10 * (size_t)LIVE;) {
        size_t place = random_next(&seed) % count, wanted = 1 + random_next(&seed) % largest;
        if (block[place]) drop(block[place], size[place]);
        block[place] = NULL;
        if (live + wanted <= LIVE) block[place] = filled(size[place] = wanted);
        done += wanted;
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 4 || argc == 5);
    size_t largest = strtoul(argv[2], NULL, 10), most = strtoul(argv[3], NULL, 10);
    small_pages_only();
    if (argc > 4) {
        rlim_t room = mapped_bytes() + strtoul(argv[4], NULL, 10) * MIB;
        CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    }
    if (strcmp(argv[1], "mixed") == 0) {
        mixed(largest);
    } else {
        phases(largest, strcmp(argv[1], "again") == 0);
    }
    size_t peak = resident_peak() / KIB;
    if (peak > most) fprintf(stderr, "%zu KiB were resident, not %zu\n", peak, most);
    CHECK(peak <= most);
    sound();
    return 0;
}
