/* Blocks that are lost, and blocks that are held in every way that there is, each kind of a size of its own; the lost
 * ones are not held. Says "ready". Meanwhile threads replace blocks, or swap pointers, at full speed.
 *
 * lost THREADS replace|swap|rest
 *
 * Lost are: 10 of 112 bytes; 1 of 208 that leads to 2 of 304 of which one leads to the other; 4 of 416 in a cycle; 1 of
 * 608 that leads to itself; 1 of 704 whose pointer lies below the stack pointer; 1 large one that leads to 1 of 800. */
#include "../check.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define LARGE ((size_t)64 << 20)
#define KEY 0x5a5a5a5a5a5a5a5au
/* Many enough that they reach to both sides of what the allocator keeps of the thread. */
#define VARIABLES 300

static __thread void *volatile own[VARIABLES];
static void *volatile middles[5];
static void *volatile *changed, *volatile *shared, *volatile *constant, *volatile *everybodys;
static uintptr_t hidden[2];
static volatile int waits;
static pthread_barrier_t begun;
static int swaps;

static void *block(size_t size) {
    void *fresh = malloc(size);
    CHECK(fresh);
    memset(fresh, 0x11, size);
    return fresh;
}

/* Not inlined: what it leaves behind lies below its caller's frame. */
__attribute__((noinline)) static void lose(void) {
    for (int i = 0; i < 10; i++)
        block(112);
    void **first = block(208), **second = block(304), **third = block(304);
    first[1] = second;
    second[5] = (char *)third + 100;
    void **ring[4];
    for (int i = 0; i < 4; i++)
        ring[i] = block(416);
    for (int i = 0; i < 4; i++)
        ring[i][i] = ring[(i + 1) % 4];
    void **self = block(608);
    self[10] = self;
    /* An address whose lower half is zero is no sure sign of a pointer: an int was stored over half of one. */
    void *volatile *large = malloc(LARGE), *other = NULL;
    if ((((uintptr_t)large - 1) ^ ((uintptr_t)large + LARGE - 1)) >> 32) {
        other = (void *)large;
        large = malloc(LARGE);
    }
    CHECK(large);
    free(other);
    large[LARGE / 16] = block(800);
}

__attribute__((noinline)) static void keep(void) {
    for (int i = 0; i < VARIABLES; i++)
        own[i] = block(128);
    for (int i = 0; i < 5; i++)
        middles[i] = (char *)block(1000) + 200 * i + 7;
    changed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(changed != MAP_FAILED);
    changed[7] = block(1100);
    constant = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(constant != MAP_FAILED);
    constant[100] = block(1200);
    CHECK(mprotect((void *)constant, 4096, PROT_READ) == 0);
    /* Its page is then in the file alone. */
    int file = memfd_create("shared", 0);
    CHECK(file >= 0 && ftruncate(file, 1 << 20) == 0);
    shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(shared != MAP_FAILED);
    shared[1000] = block(1300);
    CHECK(madvise((void *)shared, 1 << 20, MADV_DONTNEED) == 0);
    /* The kernel calls it /dev/zero. */
    everybodys = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(everybodys != MAP_FAILED);
    everybodys[3] = block(1600);
    hidden[0] = (uintptr_t)block(1400) ^ KEY;
    hidden[1] = (uintptr_t)block(1500) ^ KEY;
}

/* Has two pointers in registers, one of them a vector's, and nowhere else. */
static void *hold_in_registers(void *unused) {
    (void)unused;
    uint64_t key = KEY;
    __asm__ volatile("mov %[one], %%r12\n\t"
                     "xor %[key], %%r12\n\t"
                     "mov %[other], %%rax\n\t"
                     "xor %[key], %%rax\n\t"
                     "movq %%rax, %%xmm7\n\t"
                     "xor %%eax, %%eax\n\t"
                     "movl $1, %[waits]\n"
                     "1: mov %[pause], %%eax\n\t"
                     "syscall\n\t"
                     "jmp 1b"
                     : [waits] "=m"(waits)
                     : [one] "m"(hidden[0]), [other] "m"(hidden[1]), [key] "r"(key), [pause] "i"(SYS_pause)
                     : "r12", "rax", "rcx", "r11", "xmm7", "memory");
    return NULL;
}

/* Leaves a pointer where deep calls had it. */
__attribute__((noinline)) static void leave(void) {
    void *volatile room[1000];
    room[3] = block(704);
    CHECK(room[3]);
}

/* Nor this: it clears what others left on the stack. */
__attribute__((noinline)) static void wipe(void) {
    volatile char room[64 << 10];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

#define BLOCKS 2000

static void *work(void *argument) {
    uint64_t state = 88172645463325252u + (uintptr_t)argument;
    /* A table of tables, all in blocks. */
    void ***held = malloc(BLOCKS * sizeof *held);
    CHECK(held);
    for (int i = 0; i < BLOCKS; i++) {
        held[i] = block(48);
        *held[i] = block(96);
    }
    pthread_barrier_wait(&begun);
    for (;;) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        void **one = held[state % BLOCKS], **other = held[(state >> 32) % BLOCKS];
        if (swaps) {
            void *between = *one;
            *one = *other;
            *other = between;
        } else {
            void *old = *one;
            *one = block(96);
            free(old);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    uintptr_t threads = strtoul(argv[1], NULL, 10);
    swaps = strcmp(argv[2], "swap") == 0;
    lose();
    wipe();
    keep();
    wipe();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold_in_registers, NULL) == 0);
    while (!waits)
        usleep(1000);
    pthread_barrier_init(&begun, NULL, threads + 1);
    for (uintptr_t i = 0; i < threads; i++)
        CHECK(pthread_create(&thread, NULL, work, (void *)i) == 0);
    pthread_barrier_wait(&begun);
    wipe();
    leave();
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}
