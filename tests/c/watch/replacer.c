/* Threads that hold a constant number of blocks of one size and replace them at full speed: each new one is there
 * before the old one is freed. To be read from outside meanwhile.
 *
 * replacer THREADS BLOCKS SIZE FILE [mixed]
 *
 * The file holds a word for each thread, mapped: how many blocks it has freed. With `mixed` the blocks have up to SIZE
 * bytes, so that slabs come and go all the time. */
#include "../check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

static long blocks;
static size_t size;
static int mixed;
static volatile uint64_t *freed;
static pthread_barrier_t ready;

static void *fresh_block(uint64_t random) {
    void *block = malloc(mixed ? 1 + random % size : size);
    CHECK(block);
    return block;
}

static void *replace(void *argument) {
    long me = (long)argument;
    uint64_t state = 88172645463325252u + me;
    void **held = malloc(blocks * sizeof *held);
    for (long i = 0; i < blocks; i++)
        held[i] = fresh_block(state * i >> 16);
    pthread_barrier_wait(&ready);
    for (;;) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        void **place = &held[state % blocks];
        void *fresh = fresh_block(state >> 16);
        void *old = *place;
        *place = fresh;
        /* Counted before it happens: an observer never sees fewer than there were. */
        freed[me] = freed[me] + 1;
        free(old);
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 5 || (argc == 6 && strcmp(argv[5], "mixed") == 0));
    mixed = argc == 6;
    long threads = atol(argv[1]);
    blocks = atol(argv[2]);
    size = strtoul(argv[3], NULL, 10);
    int file = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && ftruncate(file, 4096) == 0);
    freed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(freed != MAP_FAILED);
    pthread_barrier_init(&ready, NULL, threads + 1);
    pthread_t thread;
    for (long i = 0; i < threads; i++)
        CHECK(pthread_create(&thread, NULL, replace, (void *)i) == 0);
    pthread_barrier_wait(&ready);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}
