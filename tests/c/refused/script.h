/* The script of the programs beside this: random operations of a few threads, in which a request may be
 * refused, but no block's bytes may change. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "../tools.h"

#include <pthread.h>
#include <sys/wait.h>

/* The calls that can be refused. */
enum call { MMAP, MUNMAP, MREMAP, MPROTECT, MADVISE, SBRK, ALL };
static const char *const names[] = {"mmap", "munmap", "mremap", "mprotect", "madvise", "sbrk", "all"};

static enum call call_named(const char *name) {
    enum call call = 0;
    while (call < ALL && strcmp(names[call], name) != 0) call++;
    CHECK(strcmp(names[call], name) == 0);
    return call;
}

/* What a thread has live. A block's bytes all have its number. */
enum { LIVE = 40 };
struct part {
    struct { unsigned char *at; size_t size; } live[LIVE];
    uint64_t random;
    unsigned refused;
};

static const size_t most[] = {64, 1024, 8192, 30000, 130000, 200000, 300000, 2 * MIB};

/* Large blocks are written at both ends alone, for speed. */
enum { ENDS = 5000 };
static void write_bytes(unsigned char *block, int value, size_t size) {
    size_t ends = size < 2 * ENDS ? size : ENDS;
    memset(block, value, ends);
    memset(block + size - ends, value, ends);
}
static bool keeps(const unsigned char *block, unsigned char value, size_t size, size_t whole) {
    if (size < whole || whole < 2 * ENDS) return all_are(block, value, size < ENDS ? size : ENDS);
    return all_are(block, value, ENDS) && all_are(block + size - ENDS, value, ENDS);
}

static void put(struct part *part, size_t n, unsigned char *block, size_t size) {
    part->live[n].at = block;
    part->live[n].size = block == NULL ? 0 : size;
    part->refused += block == NULL;
    if (block != NULL) write_bytes(block, (int)n + 1, size);
}

static void drop(struct part *part, size_t n) {
    CHECK(keeps(part->live[n].at, (unsigned char)(n + 1), part->live[n].size, part->live[n].size));
    free(part->live[n].at);
    part->live[n].at = NULL;
    part->live[n].size = 0;
}

static void one_step(struct part *part) {
    uint64_t word = random_next(&part->random);
    size_t n = word % LIVE, size = 1 + (word >> 20) % most[word >> 8 & 7];
    switch (word >> 12 & 7) {
    case 0: {
        unsigned char *block = realloc(part->live[n].at, size);
        size_t kept = size < part->live[n].size ? size : part->live[n].size;
        if (block == NULL) { /* the old one stays */
            part->refused++;
            break;
        }
        CHECK(keeps(block, (unsigned char)(n + 1), kept, part->live[n].size));
        put(part, n, block, size);
        break;
    }
    case 1:
        drop(part, n);
        put(part, n, calloc(1, size), size);
        break;
    case 2:
        drop(part, n);
        put(part, n, aligned_alloc(4096, size), size);
        break;
    case 3:
    case 4: drop(part, n); break;
    default: drop(part, n); put(part, n, malloc(size), size);
    }
}

/* A block larger than those whose mapping is kept for reuse: it goes back to the system when it is freed. */
static void one_huge(struct part *part) {
    size_t n = random_next(&part->random) % LIVE, size = 80 * MIB;
    drop(part, n);
    put(part, n, malloc(size), size);
    drop(part, n);
}

static void play(struct part *part, int steps) {
    for (int i = 0; i < steps; i++) {
        one_step(part);
        if (i % 100 == 50) one_huge(part);
    }
}

/* Frees what was left, perhaps by another thread. */
static void clear(struct part *part) {
    for (size_t n = 0; n < LIVE; n++) drop(part, n);
}

/* Runs `run` in a child and tells its status; any other end of it ends this program too. */
static int in_child(int (*run)(long), long k) {
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0) _exit(run(k));
    int status;
    CHECK(waitpid(process, &status, 0) == process);
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 1) {
        dprintf(STDERR_FILENO, "%ld: status %#x\n", k, status);
        _exit(1);
    }
    return WEXITSTATUS(status);
}

#endif
