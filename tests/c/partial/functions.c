/* The program replaces malloc, calloc, realloc and free alone, as glibc's manual allows: what ends in these (reallocarray,
   strdup, getline, and C23's sized frees, where there are any) works with its blocks, and a block of its own has a
   usable size of 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            dprintf(2, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);         \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static char pool[8 << 20];
static size_t used;
static int resized, freed;

static int is_ours(void *block) { return (char *)block >= pool && (char *)block < pool + sizeof pool; }

void *malloc(size_t size) {
    size_t bytes = (size + 47) & ~(size_t)15;
    if (bytes < size || bytes > sizeof pool - used) return NULL;
    size_t *block = (size_t *)(pool + used);
    used += bytes;
    block[0] = size;
    return block + 2;
}

void free(void *block) {
    if (!block) return;
    CHECK(is_ours(block));
    freed++;
}

void *calloc(size_t count, size_t size) {
    void *block = malloc(count * size);
    return block ? memset(block, 0, count * size) : NULL;
}

void *realloc(void *old, size_t size) {
    resized++;
    char *block = malloc(size);
    if (block && old) {
        size_t had = ((size_t *)old)[-2];
        memcpy(block, old, had < size ? had : size);
    }
    return block;
}

int main(void) {
    char *block = malloc(10);
    strcpy(block, "kept");
    block = reallocarray(block, 100, 4);
    CHECK(block && is_ours(block) && resized == 1 && !strcmp(block, "kept"));
    volatile size_t vast = SIZE_MAX / 2;
    CHECK(!reallocarray(block, vast, 4));
    CHECK(malloc_usable_size(block) == 0);
    CHECK(malloc_usable_size(NULL) == 0);
    char *copy = strdup(block);
    CHECK(is_ours(copy));
    int before = freed;
    void (*free_sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    CHECK(free_sized);
    free_sized(copy, 5);
    free_sized(malloc(5000), 5000);
    void (*free_aligned_sized)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
    CHECK(free_aligned_sized);
    free_aligned_sized(block, 16, 400);
    CHECK(freed == before + 3);
    /* The library's own blocks are as they always are. */
    void *(*own)(size_t) = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    void (*give_back)(void *) = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    void *other = own(100);
    CHECK(!is_ours(other) && malloc_usable_size(other) >= 100);
    give_back(other);
    puts("ok");
    return 0;
}
