/* What the programs measure and fill by: the break, residence, patterns, random numbers. Nothing here
 * allocates. */
#ifndef TOOLS_H
#define TOOLS_H

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

enum { PAGE_BYTES = 4096 };
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* Calls that the compiler knows nothing about, so that it neither warns of misuse nor drops a call. */
__attribute__((noipa, unused)) static void give(void *block) { free(block); }
__attribute__((noipa, unused)) static void *take(size_t size) { return malloc(size); }
__attribute__((noipa, unused)) static void *resize(void *block, size_t size) { return realloc(block, size); }
__attribute__((noipa, unused)) static size_t room(void *block) { return malloc_usable_size(block); }

/* A number that the compiler cannot see through. */
__attribute__((noipa, unused)) static size_t opaque_size(size_t n) { return n; }

/* Where the break stands. */
static inline char *break_now(void) { return (char *)sbrk(0); }

/* The figure after `key` in a file of /proc, in KiB as it stands there. */
static inline size_t proc_figure(const char *path, const char *key) {
    char text[8192];
    size_t length = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    for (ssize_t n; (n = read(file, text + length, sizeof text - 1 - length)) > 0;) length += (size_t)n;
    close(file);
    text[length] = 0;
    const char *place = strstr(text, key);
    CHECK(place != NULL);
    return strtoul(place + strlen(key), NULL, 10);
}

/* Bytes of memory of its own that are resident. Not what is mapped of files: the kernel maps code by 64 KiB and more around
 * a fault. */
static inline size_t resident_bytes(void) { return proc_figure("/proc/self/smaps_rollup", "Anonymous:") * KIB; }
/* Bytes of address space mapped. */
static inline size_t mapped_bytes(void) { return proc_figure("/proc/self/status", "VmSize:") * KIB; }
/* The most that was ever resident, in bytes. */
static inline size_t resident_peak(void) { return proc_figure("/proc/self/status", "VmHWM:") * KIB; }

/* Keeps huge pages away, under which one touched byte makes two megabytes resident. */
static inline void small_pages_only(void) { prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); }

/* How many of the block's pages are resident. */
static inline size_t resident_pages(const void *block, size_t bytes) {
    unsigned char seen[1024];
    uintptr_t page = (uintptr_t)block & -(uintptr_t)PAGE_BYTES;
    uintptr_t end = ((uintptr_t)block + bytes + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES;
    size_t count = 0;
    while (page < end) {
        size_t run = (end - page) / PAGE_BYTES < sizeof seen ? (end - page) / PAGE_BYTES : sizeof seen;
        CHECK(mincore((void *)page, run * PAGE_BYTES, seen) == 0);
        for (size_t i = 0; i < run; i++) count += seen[i] & 1;
        page += run * PAGE_BYTES;
    }
    return count;
}

/* Whether `bytes` bytes all have the value `value`. */
static inline bool all_are(const void *block, unsigned char value, size_t bytes) {
    const unsigned char *p = (const unsigned char *)block;
    return bytes == 0 || (p[0] == value && memcmp(p, p + 1, bytes - 1) == 0);
}

/* The next of a random sequence (xorshift64*); `state` is never zero. */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

/* Puts `count` pointers in a random order. */
static inline void shuffle(void **items, size_t count, uint64_t seed) {
    for (size_t i = count; i > 1; i--) {
        size_t j = random_next(&seed) % i;
        void *item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}

static inline int by_address(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts pointers by address, by a heap sort of their own: the C library's may allocate. */
static inline void sort_addresses(void **items, size_t count) {
    for (size_t end = count, start = count / 2; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            void *top = items[0];
            items[0] = items[--end];
            items[end] = top;
        }
        for (size_t root = start, child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && by_address(&items[child], &items[child + 1]) < 0) child++;
            if (by_address(&items[root], &items[child]) >= 0) break;
            void *item = items[root];
            items[root] = items[child];
            items[child] = item;
        }
    }
}

static inline void wait_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0) CHECK(errno == EINTR);
}

static inline uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The heap's own figures; all zero where they cannot be had. */
static inline struct slabside_stats figures(void) {
    struct slabside_stats stats = {0};
#ifndef PREFIXED
    if (slabside_stats == NULL) return stats;
#endif
    slabside_stats(&stats);
    return stats;
}

/* The heap's books balance. */
static inline void sound(void) {
#ifndef PREFIXED
    if (slabside_validate == NULL) return;
#endif
    CHECK(slabside_validate() == 0);
}

#endif
