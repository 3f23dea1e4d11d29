/* A static program on libslabside_preload.a: one heap, for the program and for the C library. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "slabside.h"

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            dprintf(2, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
            _exit(1);                                                                        \
        }                                                                                    \
    } while (0)

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *__libc_valloc(size_t);
void *__libc_pvalloc(size_t);
int __posix_memalign(void **, size_t, size_t);
void __libc_free(void *);

/* A block of ours, whichever way it came: its size is that of its class, and it goes by either free. */
static void ours(void *block, size_t asked) {
    CHECK(block != NULL && malloc_usable_size(block) == slabside_good_size(asked));
    static int turn;
    turn++ % 2 ? free(block) : __libc_free(block);
}

static void *work(void *unused) {
    for (int i = 0; i < 1000; i++) ours(malloc((size_t)i), (size_t)i);
    return unused;
}

int main(void) {
    ours(malloc(100), 100);
    ours(__libc_malloc(100), 100);
    ours(__libc_calloc(10, 10), 100);
    ours(__libc_realloc(malloc(10), 100), 100);
    ours(realloc(__libc_malloc(10), 100), 100);
    ours(__libc_memalign(128, 128), 128);
    ours(__libc_valloc(4096), 4096);
    ours(__libc_pvalloc(4000), 4096);
    ours(valloc(4096), 4096);
    ours(pvalloc(4000), 4096);
    ours(memalign(128, 128), 128);
    ours(aligned_alloc(128, 128), 128);
    ours(reallocarray(NULL, 10, 10), 100);
    void *block;
    CHECK(__posix_memalign(&block, 128, 128) == 0);
    ours(block, 128);
    CHECK(posix_memalign(&block, 128, 128) == 0);
    ours(block, 128);

    /* What the C library allocates is ours too. */
    ours(strdup("a string of some thirty letters"), 32);
    char *line = NULL;
    size_t room = 0;
    FILE *self = fopen("/proc/self/status", "r");
    CHECK(self != NULL && getline(&line, &room, self) > 0);
    fclose(self);
    ours(line, room);
    regex_t pattern;
    CHECK(regcomp(&pattern, "a*(b|c)+", REG_EXTENDED) == 0 && regexec(&pattern, "aaabc", 0, NULL, 0) == 0);
    regfree(&pattern);
    pthread_t thread;
    for (int i = 0; i < 20; i++) CHECK(pthread_create(&thread, NULL, work, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        work(NULL);
        CHECK(slabside_validate() == 0);
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);

    struct mallinfo2 info = mallinfo2();
    CHECK(info.arena >= info.uordblks && info.uordblks > 0 && mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
    malloc_trim(0);
    CHECK(slabside_validate() == 0);
    char *text;
    size_t length;
    FILE *memory = open_memstream(&text, &length);
    CHECK(malloc_info(0, memory) == 0 && fclose(memory) == 0 && strstr(text, "</malloc>") != NULL);
    free(text);
    puts("done");
    return 0;
}
