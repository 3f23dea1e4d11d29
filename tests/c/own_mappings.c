/* usage: own_mappings [walled] - a program that limits its own address space after the heap has begun, above what it
 * uses, maps memory and starts threads as before: what the heap does not use counts for nothing. With "walled" the break
 * cannot move, and the heap lies in a window. */
#include "tools.h"

#include <pthread.h>
#include <sys/resource.h>

static void put_a_wall(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
}

static void *work(void *unused) {
    for (int i = 0; i < 1000; i++) give(take(300));
    return unused;
}

int main(int argc, char **argv) {
    static void *object[1 << 14];
    if (argc > 1 && strcmp(argv[1], "walled") == 0) put_a_wall();
    for (int i = 0; i < 1 << 10; i++) CHECK((object[i] = take(1000)) != NULL);
    CHECK(mapped_bytes() < 128 * MIB);
    struct rlimit limit = {mapped_bytes() + 64 * MIB, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);

    for (int i = 0; i < 4; i++)
        CHECK(mmap(0, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    pthread_attr_t small;
    CHECK(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, MIB) == 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &small, work, NULL) == 0 && pthread_join(thread, NULL) == 0);
    }
    for (int i = 1 << 10; i < 1 << 14; i++) CHECK((object[i] = take(1000)) != NULL);
    void *large = take(20 * MIB);
    CHECK(large != NULL && take(80 * MIB) == NULL);
    give(large);
    for (int i = 0; i < 1 << 14; i++) give(object[i]);
    sound();
    return 0;
}
