/* Blocks from before the libraries' constructors, from constructors and a thread begun in one; they live
 * until the destructors, in which more come and go. */
#include "tools.h"

#include <pthread.h>

enum { SIZES = 8 };
static const size_t sizes[SIZES] = {0, 8, 100, 1000, 5000, 20000, 100000, 300000};
static unsigned char *from_preinit[SIZES], *from_constructor[SIZES], *from_thread[SIZES];

static void take_all(unsigned char **blocks) {
    for (int i = 0; i < SIZES; i++) {
        blocks[i] = i % 2 ? calloc(1, sizes[i]) : take(sizes[i]);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 0x42, sizes[i]);
    }
}

static void give_all(unsigned char **blocks) {
    for (int i = 0; i < SIZES; i++) {
        CHECK(all_are(blocks[i], 0x42, sizes[i]));
        give(blocks[i]);
    }
}

static void take_and_give(void) {
    unsigned char *blocks[SIZES];
    take_all(blocks);
    give_all(blocks);
}

static void before_all(void) { take_all(from_preinit); }
__attribute__((section(".preinit_array"), used)) static void (*preinit)(void) = before_all;

static void *run(void *unused) {
    take_and_give();
    take_all(from_thread);
    return unused;
}

static void at_exit(void) {
    give_all(from_thread);
    take_and_give();
}

__attribute__((constructor(101))) static void first(void) {
    pthread_t thread;
    take_all(from_constructor);
    take_and_give();
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atexit(at_exit) == 0);
}

__attribute__((destructor(101))) static void last(void) {
    give_all(from_constructor);
    take_and_give();
    give_all(from_preinit);
    take_and_give();
    dprintf(STDOUT_FILENO, "done\n");
}

int main(void) {
    take_and_give();
    return 0;
}
