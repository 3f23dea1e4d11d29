/* usage: wrapped CALL MODE FROM TO - a real process in which the system refuses.
 *
 *   CALL  mmap, munmap, mremap, mprotect, madvise, sbrk, all
 *   MODE  once (the k-th such call of the allocator's fails), on (all from the k-th on), burst (at random,
 *         several in a row; k is the seed)
 *
 * For each k from FROM to TO a forked child plays the same script with three threads, in which every block's
 * bytes are checked before it goes; then the books must balance, and when the system gives again, so must the
 * allocator. Linked with --wrap, so that the calls of the static library come here and libc's own do not. Says
 * how many children met a refusal, and ends early when one met none: then there are no more calls. */
#include "script.h"

#include <stdarg.h>

static enum call refused;
static enum mode { ONCE, ON, BURST, NEVER } wanted, mode = NEVER;
static long at, calls, refusals;

/* Whether this call fails. Any thread may ask; takes no lock. */
static bool fails(enum call call) {
    if (mode == NEVER || (refused != ALL && refused != call)) return false;
    long n = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    uint64_t draw = (uint64_t)(n / 4 + 1) * 0x9e3779b97f4a7c15ULL + (uint64_t)at * 0xd1342543de82ef95ULL;
    bool fail = mode == ONCE ? n == at : mode == ON ? n >= at : random_next(&draw) >> 62 == 0;
    if (fail) {
        __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
        errno = ENOMEM;
    }
    return fail;
}

void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_mmap(void *place, size_t bytes, int access, int flags, int file, off_t offset) {
    return fails(MMAP) ? MAP_FAILED : __real_mmap(place, bytes, access, flags, file, offset);
}
int __real_munmap(void *, size_t);
int __wrap_munmap(void *place, size_t bytes) { return fails(MUNMAP) ? -1 : __real_munmap(place, bytes); }
void *__real_mremap(void *, size_t, size_t, int, ...);
void *__wrap_mremap(void *place, size_t old, size_t bytes, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
    va_end(rest);
    return fails(MREMAP) ? MAP_FAILED : __real_mremap(place, old, bytes, flags, to);
}
int __real_mprotect(void *, size_t, int);
int __wrap_mprotect(void *place, size_t bytes, int access) {
    return fails(MPROTECT) ? -1 : __real_mprotect(place, bytes, access);
}
int __real_madvise(void *, size_t, int);
int __wrap_madvise(void *place, size_t bytes, int advice) {
    return fails(MADVISE) ? -1 : __real_madvise(place, bytes, advice);
}
void *__real_sbrk(intptr_t);
void *__wrap_sbrk(intptr_t delta) { return delta != 0 && fails(SBRK) ? (void *)-1 : __real_sbrk(delta); }

enum { THREADS = 3, MET = 0, NONE = 2 };

static void *play_half(void *part) {
    play(part, 150);
    return NULL;
}

static void *clear_all(void *part) {
    clear(part);
    return NULL;
}

/* What a child does: NONE where it met no refusal. */
static int run(long k) {
    static struct part parts[THREADS];
    pthread_t threads[THREADS];
    at = k;
    mode = wanted;
    /* The break is moved beside another malloc only while there is one thread. */
    parts[0].random = 99;
    play_half(&parts[0]);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < THREADS; i++) {
            parts[i].random = 1 + (uint64_t)i + 10 * (uint64_t)round;
            CHECK(pthread_create(&threads[i], NULL, play_half, &parts[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        sound();
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, clear_all, &parts[(i + 1) % THREADS]) == 0);
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    sound();
    CHECK(figures().live == 0);
    mode = NEVER;
    for (size_t i = 0; i < 8; i++) {
        void *block = malloc(most[i]);
        CHECK(block != NULL);
        free(block);
    }
    sound();
    return refusals > 0 ? MET : NONE;
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    refused = call_named(argv[1]);
    wanted = strcmp(argv[2], "once") == 0 ? ONCE : strcmp(argv[2], "on") == 0 ? ON : BURST;
    long met = 0;
    for (long k = atol(argv[3]); k < atol(argv[4]); k++) {
        bool none = in_child(run, k) == NONE;
        met += !none;
        if (none && wanted != BURST) break;
    }
    dprintf(STDOUT_FILENO, "%ld\n", met);
    return 0;
}
