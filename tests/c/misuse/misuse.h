/* What each program of the catalogue begins with: the tools, and a way to go on after a misuse.
 *
 * Each program misuses the heap once. Its first comment says how it is to end (tests/catalogue.rs reads it):
 *
 *   attack:     what it does
 *   default:    how it ends;  abort: LINE - SIGABRT, and the line after "slabside: " begins like this
 *                             fault       - SIGSEGV or SIGBUS
 *                             sound: WORDS - it goes on, prints that, and the heap is whole
 *               in a line P stands for an address and N for a number; `or` stands between two ways to end
 *   checked:    the same under SLABSIDE_OPTIONS=sizes:check, where it ends otherwise then
 *   hardened:   the same under SLABSIDE_OPTIONS=hardened
 *   certainty:  whether what is found is found always
 *   mechanism:  by what
 *   form:       prefixed or preloaded, where it is not both */
#ifndef MISUSE_H
#define MISUSE_H

#include "../tools.h"

#include <pthread.h>

enum { SOME = 20 };
static void *block[SOME];

/* How far below `place` the next of the blocks lies. */
__attribute__((unused)) static size_t gap_below(const void *place) {
    size_t least = SIZE_MAX;
    for (int i = 0; i < SOME; i++) {
        size_t gap = (uintptr_t)place - (uintptr_t)block[i];
        if (block[i] != place && gap < least) least = gap;
    }
    return least;
}

/* Some live blocks of `size` bytes, filled; the one that is misused has another of them right below, as far as that
 * can be: what the C library allocated at its start is never freed, so that nobody would look at it again. Nor, if it
 * can be, does it begin a page: below that might be the end of another class's slab. */
__attribute__((unused)) static void *one_of_some(size_t size) {
    for (int i = 0; i < SOME; i++) block[i] = memset(take(size), 0xee, size);
    void *best = block[SOME / 2];
    for (int i = 0; i < SOME; i++)
        if ((uintptr_t)block[i] % 4096 != 0 && gap_below(block[i]) < gap_below(best)) best = block[i];
    return best;
}

/* Writes that the compiler knows nothing about. */
__attribute__((noipa, unused)) static void fill(void *place, size_t bytes) { memset(place, 0x5a, bytes); }
/* One byte, of which nothing is known: it is another one from now on. */
__attribute__((noipa, unused)) static void change(char *place) { *place ^= 0x5a; }
__attribute__((noipa, unused)) static void copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
__attribute__((noipa, unused)) static bool reads_as(const void *place, unsigned char value, size_t bytes) {
    return all_are(place, value, bytes);
}

__attribute__((unused)) static void *free_it(void *place) {
    give(place);
    return NULL;
}

/* Runs `run` in another thread, to its end. */
__attribute__((unused)) static void elsewhere(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* A size as programs ask for: mostly small, at times a span, seldom a large block. */
static size_t any_size(uint64_t *random) {
    uint64_t word = random_next(random);
    size_t most = word % 1000 == 0 ? MIB : word % 50 == 0 ? 100000 : word % 8 == 0 ? 8192 : 256;
    return 1 + (word >> 20) % most;
}

/* 100,000 operations, each block's bytes being looked at before it goes: none may have got another's. */
static void use_the_heap(void) {
    enum { LIVE = 1000 };
    static struct { unsigned char *at; size_t size; } live[LIVE];
    uint64_t random = 7;
    for (int i = 0; i < 100000; i++) {
        size_t n = random_next(&random) % LIVE, size = any_size(&random);
        CHECK(all_are(live[n].at, (unsigned char)n, live[n].size));
        if (live[n].at != NULL && i % 4 == 0) {
            live[n].at = (unsigned char *)resize(live[n].at, size);
        } else {
            give(live[n].at);
            live[n].at = (unsigned char *)take(size);
        }
        CHECK(live[n].at != NULL);
        live[n].size = size;
        memset(live[n].at, (unsigned char)n, size);
    }
    for (int n = 0; n < LIVE; n++) {
        CHECK(all_are(live[n].at, (unsigned char)n, live[n].size));
        give(live[n].at);
    }
}

/* Allocates and frees blocks of `size` bytes until every slot of theirs that is free has had its turn. */
__attribute__((unused)) static void use_again(size_t size) {
    enum { LIVE = 1000 };
    static void *again[LIVE];
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < LIVE; i++) CHECK((again[i] = take(size)) != NULL);
        for (int i = 0; i < LIVE; i++) give(again[i]);
    }
}

/* The program goes on after what it did: the books balance, and the heap serves. */
__attribute__((unused)) static int go_on(const char *words) {
    sound();
    use_the_heap();
    sound();
    /* dprintf(3) allocates, and libc's own heap may be one of the others that were reached. */
    char line[256];
    int length = snprintf(line, sizeof line, "sound: %s\n", words);
    CHECK(length > 0 && (size_t)length < sizeof line && write(STDOUT_FILENO, line, (size_t)length) == length);
#ifdef PREFIXED
    _exit(0); /* libc's exit uses its own heap as well. */
#endif
    return 0;
}

#endif
