/* What looks odd and is correct: none of it may end the program. */
#include "tools.h"

#include <pthread.h>

enum { COUNT = 5000 };
static void *object[COUNT];
static const size_t sizes[] = {0, 8, 16, 48, 64, 100, 1024, 4096, 5000, 8192, 20000, 131072, 300000};

static size_t count_of(size_t size) { return size <= 1024 ? COUNT : size <= 8192 ? 500 : 40; }

static void *allocate(void *size) {
    for (size_t i = 0; i < count_of(*(size_t *)size); i++) CHECK((object[i] = take(*(size_t *)size)) != NULL);
    return NULL;
}

static void *release(void *size) {
    for (size_t i = 0; i < count_of(*(size_t *)size); i++) give(object[i]);
    return NULL;
}

static void *release_half(void *size) {
    for (size_t i = 0; i < count_of(*(size_t *)size); i += 2) {
        give(object[i]);
        object[i] = NULL;
    }
    return NULL;
}

static void elsewhere(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void in_every_order(size_t size) {
    allocate(&size), elsewhere(release, &size);
    elsewhere(allocate, &size), release(&size);
    elsewhere(allocate, &size), elsewhere(release, &size);
    allocate(&size), elsewhere(release_half, &size), release(&size);
    allocate(&size), release_half(&size), elsewhere(release, &size);
    elsewhere(allocate, &size), release_half(&size), elsewhere(release, &size);
    elsewhere(allocate, &size), elsewhere(release_half, &size), release(&size);
}

/* The same address comes and goes again and again, through both threads. */
static void *give_and_take(void *block) {
    give(*(void **)block);
    *(void **)block = take(48);
    return NULL;
}

static void nulls(void) {
    give(NULL);
    CHECK(room(NULL) == 0);
    void *block = resize(NULL, 10);
    CHECK(block != NULL);
    give(block);
    give(reallocarray(NULL, 3, 7));
}

int main(void) {
    nulls();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) in_every_order(sizes[i]);
    void *block = take(48);
    for (int i = 0; i < 500; i++) {
        elsewhere(give_and_take, &block);
        give_and_take(&block);
    }
    give(block);
    for (size_t align = 16; align <= MIB; align *= 2) /* whatever address an aligned block has */
        for (size_t size = 1; size < 300000; size = size * 3 + 1) {
            block = aligned_alloc(align, size);
            CHECK(room(block) >= size);
            give(resize(block, size + 1));
        }
    sound();
    return 0;
}
