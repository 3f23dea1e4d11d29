/* A heap profile with a sample in every few blocks, switched on and off, while threads exchange blocks of all sizes, end
 * and fork: no block loses a byte, and the heap and its samples are sound. */
#include "../tools.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { SHARED = 512, THREADS = 4 };
static _Atomic(unsigned char *) shared[SHARED];
static size_t turns;

static size_t size_of(uint64_t random) {
    static const size_t most[] = {64, 64, 200, 1000, 5000, 40000, 300000};
    return 17 + (random >> 32) % most[random % 7];
}

/* A block that says its own size and contents. */
static unsigned char *made(uint64_t random) {
    size_t size = size_of(random);
    unsigned char *block = take(size);
    CHECK(block != NULL);
    memcpy(block, &size, sizeof size);
    block[8] = block[size - 1] = (unsigned char)random;
    return block;
}

static void unmade(unsigned char *block) {
    if (!block) return;
    size_t size;
    memcpy(&size, block, sizeof size);
    CHECK(block[8] == block[size - 1] || size == 17);
    give(block);
}

static void exchange(uint64_t seed, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t random = random_next(&seed);
        unmade(atomic_exchange(&shared[random % SHARED], made(random)));
        if (random % 31 == 0) {
            unsigned char *block = made(random);
            size_t size = 17 + 3 * size_of(random);
            unsigned char mark = block[8];
            block = resize(block, size);
            CHECK(block != NULL && block[8] == mark);
            give(block);
        }
    }
}

static void *run(void *number) {
    exchange(0x9e3779b97f4a7c15ULL * ((uintptr_t)number + 1), turns);
    return NULL;
}

static void child(uint64_t seed) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(slabside_validate() == 0);
        exchange(seed, 2000);
        CHECK(slabside_validate() == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(int argc, char **argv) {
    (void)argc;
    turns = (size_t)atol(argv[1]);
    CHECK(slabside_profile(512) == 0);
    exchange(1, 2000);
    CHECK(slabside_validate() == 0);
    for (size_t round = 0; round < 6; round++) {
        pthread_t threads[THREADS];
        for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, run, (void *)i) == 0);
        if (round % 2) child(round + 7);
        size_t next = round == 2 ? 0 : 100 << round;
        slabside_profile(next);
        exchange(round + 3, turns);
        CHECK(slabside_profile(next) == next);
        for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        CHECK(slabside_validate() == 0);
        child(round + 77);
    }
    for (size_t i = 0; i < SHARED; i++) unmade(atomic_exchange(&shared[i], NULL));
    CHECK(slabside_validate() == 0);
    return 0;
}
