/* What stays resident: each question is a small program of its own, and prints one figure.
 *
 * usage: questions NAME [ARGUMENT]       without a name: all names, a line each */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MB 1000000.0

/* Nothing here is allocated by malloc but what is asked about. */
static void *table_of(size_t bytes) {
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (table == MAP_FAILED) exit(2);
    return table;
}

/* Bytes resident now, counted from the page tables. */
static size_t resident(void) {
    char text[4096];
    int file = open("/proc/self/smaps_rollup", O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length < 0 ? 0 : length] = 0;
    char *place = strstr(text, "Rss:");
    return place == NULL ? 0 : strtoul(place + 4, NULL, 10) * 1024;
}
static size_t start; /* resident before the first block, tables among them */
static void begin(void) { start = resident(); }
static double held(void) { return (double)(resident() - start); }

static uint64_t next(uint64_t *s) {
    *s ^= *s << 13, *s ^= *s >> 7, *s ^= *s << 17;
    return *s;
}
static void *filled(size_t size) { return memset(malloc(size), 1, size); }
static void rest(double seconds) { usleep((useconds_t)(seconds * 1e6)); }
static pthread_t run(void *(*work)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, argument) != 0) exit(2);
    return thread;
}
/* A few calls, as a program makes them that goes on. */
static void some_calls(void) {
    for (int i = 0; i < 40; i++) {
        for (size_t size = 16; size < 40000; size = size * 3 / 2) free(filled(size));
        rest(0.05);
    }
}

/* Holes: 200 MB of one size, all but a random 1 in PART freed; two seconds and some calls later. */
static double holes(size_t size, unsigned part) {
    size_t count = 200000000 / size;
    void **p = table_of(count * sizeof *p);
    uint64_t s = 88172645463325252u;
    begin();
    for (size_t i = 0; i < count; i++) p[i] = filled(size);
    for (size_t i = 0; i < count; i++)
        if (next(&s) % part) free(p[i]);
    some_calls();
    return held() / MB;
}
static double holes_96(void) { return holes(96, 64); }
static double holes_300(void) { return holes(300, 64); }
static double holes_1000(void) { return holes(1000, 64); }
static double holes_2000(void) { return holes(2000, 64); }
static double holes_eighth(void) { return holes(1000, 8); }

/* A burst of 200 MB is freed, and no call follows. */
static double idle(size_t size) {
    size_t count = 200000000 / size;
    void **p = table_of(count * sizeof *p);
    begin();
    for (size_t i = 0; i < count; i++) p[i] = filled(size);
    for (size_t i = 0; i < count; i++) free(p[i]);
    rest(3);
    return held() / MB;
}
static double idle_1000(void) { return idle(1000); }
static double idle_50000(void) { return idle(50000); }
static double idle_large(void) { return idle(1000000); }

/* 100 MB of blocks of several pages, each sixteenth of which stays. No call follows. */
static double idle_sixteenth(void) {
    size_t size = 16384, count = 100000000 / size;
    void **p = table_of(count * sizeof *p);
    begin();
    for (size_t i = 0; i < count; i++) p[i] = filled(size);
    for (size_t i = 0; i < count; i++)
        if (i % 16 != 0) free(p[i]);
    rest(3);
    return held() / MB;
}

/* The main thread makes 100 MB and sleeps; another one frees them, a third makes as much. */
enum { SLEPT = 1000000 };
static void **slept;
static void *free_slept(void *x) {
    for (int i = 0; i < SLEPT; i++) free(slept[i]);
    return x;
}
static void *make_slept(void *x) {
    for (int i = 0; i < SLEPT; i++) slept[i] = filled(100);
    return x;
}
static double sleeping_owner(void) {
    slept = table_of(SLEPT * sizeof *slept);
    begin();
    make_slept(NULL);
    pthread_join(run(free_slept, NULL), NULL);
    rest(2);
    return held() / MB;
}
static double sleeping_again(void) {
    sleeping_owner();
    pthread_join(run(make_slept, NULL), NULL);
    return held() / MB;
}

/* Random replacement by `threads` threads of small blocks, all made by the first one, which sleeps. Resident over live. */
static const unsigned short smalls[16] = {16, 24, 32, 32, 48, 48, 64, 64, 64, 80, 96, 112, 128, 160, 200, 256};
static struct {
    void *_Atomic *p;
    size_t count, rounds;
} shared;
static size_t small(uint64_t *s) { return smalls[next(s) & 15]; }
static void *replace_shared(void *seed) {
    uint64_t s = (uint64_t)seed;
    for (size_t i = 0; i < shared.rounds; i++)
        free(__atomic_exchange_n((void **)&shared.p[next(&s) % shared.count], filled(small(&s)), __ATOMIC_ACQ_REL));
    return NULL;
}
static double replaced(size_t live, int threads, size_t rounds) {
    uint64_t s = 88172645463325252u;
    size_t made = 0;
    shared.count = live / 86, shared.rounds = rounds;
    shared.p = table_of(shared.count * sizeof *shared.p);
    begin();
    for (size_t i = 0; i < shared.count; i++) {
        size_t size = small(&s);
        shared.p[i] = filled(size);
        made += size;
    }
    pthread_t thread[8];
    for (intptr_t i = 0; i < threads; i++) thread[i] = run(replace_shared, (void *)(i * 7919 + 12345));
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    return held() / (double)made;
}
static double worker_replaces(void) { return replaced(500000000, 1, 12000000); }
static double two_cross(void) { return replaced(200000000, 2, 6000000); }

/* Eight phases, each with 300 MB live in another size, all freed in between: the most resident, over 300 MB. */
static double phases(void) {
    static const size_t sizes[8] = {5000, 9000, 20000, 50000, 120000, 300000, 900000, 2100000};
    void **p = table_of(300000000 / sizes[0] * sizeof *p);
    double most = 0;
    begin();
    for (int phase = 0; phase < 8; phase++) {
        size_t count = 300000000 / sizes[phase];
        for (size_t i = 0; i < count; i++) {
            p[i] = filled(sizes[phase]);
            if (i % 256 == 0 && held() > most) most = held();
        }
        if (held() > most) most = held();
        for (size_t i = 0; i < count; i++) free(p[i]);
    }
    return most / 300e6;
}

/* A server over time: eight phases of mixed sizes, each dropping to 40 % at random and refilled to 400 MB. The worst
 * resident over live at a phase's end. */
static size_t mixed(uint64_t *s, int phase) {
    uint64_t r = next(s) % 100;
    if (r < 85) return 16 + next(s) % (200 + 60 * (unsigned)phase);
    if (r < 97) return 500 + next(s) % (1500 + 400 * (unsigned)phase);
    return 4000 + next(s) % 30000;
}
static double server(void) {
    enum { MOST = 4000000 };
    static const size_t full = 400000000;
    void **p = table_of(MOST * sizeof *p);
    uint32_t *size = table_of(MOST * sizeof *size);
    size_t count = 0, live = 0;
    uint64_t s = 88172645463325252u;
    double worst = 0;
    begin();
    for (int phase = 0; phase < 8; phase++) {
        while (live < full && count < MOST) {
            size[count] = (uint32_t)mixed(&s, phase);
            p[count] = filled(size[count]), live += size[count++];
        }
        double ratio = held() / (double)live;
        if (ratio > worst) worst = ratio;
        while (live > full * 4 / 10) {
            size_t i = next(&s) % count;
            free(p[i]), live -= size[i];
            p[i] = p[--count], size[i] = size[count];
        }
    }
    return worst;
}

/* 200 threads that hold two blocks and sleep: KB each, stack and all. */
static pthread_barrier_t there;
static void *hold_two(void *x) {
    void *a = filled(100), *b = filled(500);
    pthread_barrier_wait(&there);
    pthread_barrier_wait(&there);
    free(a), free(b);
    return x;
}
static double idle_thread(void) {
    enum { THREADS = 200 };
    pthread_t thread[THREADS];
    pthread_barrier_init(&there, NULL, THREADS + 1);
    free(filled(100));
    begin();
    for (int i = 0; i < THREADS; i++) thread[i] = run(hold_two, NULL);
    pthread_barrier_wait(&there);
    rest(0.2);
    double each = held() / THREADS / 1000;
    pthread_barrier_wait(&there);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    return each;
}

/* Twenty threads in turn that free 20 MB each: MB that stay. */
enum { BURST = 100000 };
static void *burst(void *x) {
    void **p = x;
    for (int i = 0; i < BURST; i++) p[i] = filled(200);
    for (int i = 0; i < BURST; i++) free(p[i]);
    return x;
}
static double turns(void) {
    void **p = table_of(BURST * sizeof *p);
    free(filled(1));
    begin();
    for (int i = 0; i < 20; i++) pthread_join(run(burst, p), NULL);
    return held() / MB;
}

/* One thread replaces small blocks at random, two million times: resident over live. */
static double small_replaced(void) { return replaced(43000000, 1, 2000000); }

/* 100,000 blocks of 9 to 36 KB of which one page each is used: MB. */
static double one_page_used(void) {
    uint64_t s = 88172645463325252u;
    begin();
    for (int i = 0; i < 100000; i++) *(volatile char *)malloc(9000 + next(&s) % 27000) = 1;
    return held() / MB;
}

/* 20,000 blocks of 8 KiB made 100 bytes long: MB. */
static double shrunk(void) {
    enum { COUNT = 20000 };
    void **p = table_of(COUNT * sizeof *p);
    begin();
    for (int i = 0; i < COUNT; i++) p[i] = filled(8192);
    for (int i = 0; i < COUNT; i++) p[i] = realloc(p[i], 100);
    some_calls();
    return held() / MB;
}

static const struct {
    const char *name, *unit, *text;
    double (*ask)(void);
} questions[] = {
    {"holes-96", "MB", "200 MB of 96 bytes, all but a random 1/64 freed, some calls later", holes_96},
    {"holes-300", "MB", "… of 300 bytes", holes_300},
    {"holes-1000", "MB", "… of 1,000 bytes", holes_1000},
    {"holes-2000", "MB", "… of 2,000 bytes", holes_2000},
    {"holes-1000-eighth", "MB", "… of 1,000 bytes, all but 1/8 freed", holes_eighth},
    {"idle-1000", "MB", "200 MB of 1,000 bytes freed, no call for 3 s", idle_1000},
    {"idle-50000", "MB", "… of 50,000 bytes", idle_50000},
    {"idle-1000000", "MB", "… of 1,000,000 bytes", idle_large},
    {"idle-16384-sixteenth", "MB", "100 MB of 16,384 bytes freed but each sixteenth, no call for 3 s", idle_sixteenth},
    {"sleeping-owner", "MB", "100 MB made by a thread that sleeps, freed by another", sleeping_owner},
    {"sleeping-again", "MB", "… and made again by a third", sleeping_again},
    {"worker", "x", "500 MB made by a thread that sleeps, replaced at random by another: resident / live", worker_replaces},
    {"crossing", "x", "200 MB replaced at random by two threads: resident / live", two_cross},
    {"phases", "x", "eight phases of 300 MB in another size each: peak / 300 MB", phases},
    {"server", "x", "400 MB of mixed sizes, dropped to 40 % and refilled eight times: worst resident / live", server},
    {"idle-thread", "KB", "a thread that holds two blocks and sleeps", idle_thread},
    {"turns", "MB", "twenty threads in turn that freed 20 MB each", turns},
    {"replaced", "x", "43 MB of small blocks after two million replacements: resident / live", small_replaced},
    {"one-page", "MB", "100,000 blocks of 9 to 36 KB of which one page is used", one_page_used},
    {"shrunk", "MB", "20,000 blocks of 8 KiB made 100 bytes long", shrunk},
};

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        if (argc < 2) printf("%s\t%s\t%s\n", questions[i].name, questions[i].unit, questions[i].text);
        else if (strcmp(argv[1], questions[i].name) == 0) {
            double figure = questions[i].ask();
            printf(strcmp(questions[i].unit, "x") == 0 ? "%.2f\n" : "%.1f\n", figure);
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
