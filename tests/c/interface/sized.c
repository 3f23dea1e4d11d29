/* usage: sized [CASE] - free_sized and free_aligned_sized take the size that was asked for, of any kind of
 * block; with CASE a size that cannot be. */
#include "../tools.h"

#include <pthread.h>

static const size_t sizes[] = {0,    1,    7,    8,     9,     16,    17,    100,    256,    257,    1000,   1024,
                               1025, 5000, 8192, 8193, 20000, 70000, 131072, 131073, 300000, 5000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void asked_for(void) {
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SIZES; i++) {
            free_sized(take(sizes[i]), sizes[i]);
            free_sized(calloc(1, sizes[i]), sizes[i]);
            free_sized(resize(take(10), sizes[i] + 1), sizes[i] + 1);
            for (size_t align = 1; align <= 64 * KIB; align *= 2)
                free_aligned_sized(aligned_alloc(align, sizes[i]), align, sizes[i]);
        }
    }
    free_sized(NULL, 100);
    free_aligned_sized(NULL, 64, 100);
}

/* Spans from the bins may be larger than what is asked for. */
static void reused_spans(void) {
    void *held[64];
    uint64_t seed = 7;
    for (int round = 0; round < 200; round++) {
        size_t asked[64];
        for (int i = 0; i < 64; i++) held[i] = take(asked[i] = 8193 + random_next(&seed) % 400000);
        for (int i = 0; i < 64; i++) free_sized(held[i], asked[i]);
    }
}

/* What realloc left in place is the size that it was asked for last. */
static void shrunk(void) {
    static const size_t from[] = {100, 1000, 8000, 30000, 100000, 300000, 3000000};
    for (int i = 0; i < 7; i++)
        for (size_t to = 1; to < from[i]; to = to * 3 + 1) {
            void *block = resize(take(from[i]), to);
            free_sized(block, to);
        }
    char *grown = take(33000);
    for (size_t size = 33000; size < 400000; size += 5000) grown = resize(grown, size);
    free_sized(resize(grown, 390000), 390000);
}

/* What is allocated at least may be said to be anything in between. */
static void at_least(void) {
    for (int i = 0; i < 50 * SIZES; i++) {
        size_t usable, size = sizes[i % SIZES];
        void *block = slabside_malloc_at_least(size, &usable);
        free_sized(block, usable);
        block = slabside_malloc_at_least(size, &usable);
        free_sized(block, size + (usable - size) / 2);
    }
}

static void *elsewhere(void *block) {
    free_sized(block, 100);
    return NULL;
}

int main(int argc, char **argv) {
    const char *wrong = argc > 1 ? argv[1] : "";
    void *block = NULL;
    if (!strcmp(wrong, "smaller")) free_sized(block = take(100), 96);
    if (!strcmp(wrong, "larger")) free_sized(block = take(100), 113);
    if (!strcmp(wrong, "huge")) free_sized(block = take(100), SIZE_MAX);
    if (!strcmp(wrong, "zero")) free_sized(block = take(100), 0);
    if (!strcmp(wrong, "span-as-slot")) free_sized(block = take(50000), 100);
    if (!strcmp(wrong, "span-larger")) free_sized(block = take(50000), 70000);
    if (!strcmp(wrong, "span-smaller")) free_sized(block = take(100000), 50000);
    if (!strcmp(wrong, "large-larger")) free_sized(block = take(300000), 400000);
    if (!strcmp(wrong, "large-smaller")) free_sized(block = take(3000000), 100);
    if (!strcmp(wrong, "alignment")) free_aligned_sized(block = aligned_alloc(64, 100), 256, 100);
    if (!strcmp(wrong, "no-alignment")) free_aligned_sized(block = aligned_alloc(64, 100), 24, 100);
    if (!strcmp(wrong, "upper")) free_sized(block = take(3000), 2000);
    if (!strcmp(wrong, "roomy-larger")) free_sized(block = resize(take(1000), 100), 2000);
    if (!strcmp(wrong, "freed")) {
        block = take(100);
        give(block);
        free_sized(block, 100);
    }
    if (!strcmp(wrong, "freed-wrong")) {
        block = take(100);
        give(block);
        free_sized(block, 50);
    }
    CHECK(*wrong == 0);

    asked_for();
    reused_spans();
    at_least();
    shrunk();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, elsewhere, take(100)) == 0 && pthread_join(thread, NULL) == 0);
    errno = 77;
    free_sized(take(100), 100);
    CHECK(errno == 77);
    sound();
    return 0;
}
