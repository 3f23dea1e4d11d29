/* Allocates and frees at full speed, in threads that free each other's blocks, and keeps a log of what it holds in a file
 * that is mapped: to be stopped anywhere and compared slot by slot.
 *
 * logger THREADS FILE
 *
 * The log has a word for "go on", a word for each thread that says whether a block is on its way in or out of the table,
 * and the table: addresses. Nothing is allocated between "ready" and the word, which becomes 1. */
#include "../check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 20000, THREADS = 8 };

struct log {
    _Atomic uint64_t go;
    _Atomic uint64_t moving[THREADS];
    _Atomic uint64_t held[SLOTS];
};

static struct log *told;
static pthread_barrier_t ready;

static size_t size_of(uint64_t r) {
    switch (r % 64) {
    case 0: return 130000 + r / 64 % 400000;
    case 1: return 8193 + r / 64 % 100000;
    case 2: case 3: case 4: return 1025 + r / 64 % 7000;
    default: return 1 + r / 64 % 600;
    }
}

static void *work(void *argument) {
    long me = (long)argument;
    uint64_t state = 88172645463325252u + 7 * me;
    pthread_barrier_wait(&ready);
    while (!told->go)
        usleep(1000);
    for (;;) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        _Atomic uint64_t *place = &told->held[(state >> 20) % SLOTS];
        told->moving[me] = 1;
        uint64_t old = atomic_exchange(place, 0);
        if (old) {
            free((void *)old);
        } else {
            char *block = malloc(size_of(state >> 33));
            CHECK(block);
            block[0] = (char)state;
            uint64_t none = 0;
            if (!atomic_compare_exchange_strong(place, &none, (uint64_t)block))
                free(block);
        }
        told->moving[me] = 0;
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    long threads = atol(argv[1]);
    int file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && ftruncate(file, sizeof *told) == 0);
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(told != MAP_FAILED);
    pthread_barrier_init(&ready, NULL, threads + 1);
    pthread_t thread;
    for (long i = 0; i < threads; i++)
        CHECK(pthread_create(&thread, NULL, work, (void *)i) == 0);
    pthread_barrier_wait(&ready);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}
