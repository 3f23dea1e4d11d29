/* usage: seccomp [uncompared] - a program that confines itself to the usual memory calls, and is killed at any other,
 * goes on allocating, and so do threads of it whose first allocation comes after that. `uncompared`: the futex call that
 * compares a word is refused. */
#include "../filter.h"
#include "../tools.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>

#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void confine(bool compares) {
    unsigned answer = compares ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EPERM;
    struct sock_filter filter[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        LOAD_NUMBER,
        ALLOW(brk), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap), ALLOW(mprotect), ALLOW(madvise),
        ALLOW(futex), ALLOW(write), ALLOW(exit_group), ALLOW(rt_sigreturn), ALLOW(clock_gettime),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    install_filter(filter, sizeof filter / sizeof *filter, SECCOMP_FILTER_FLAG_TSYNC);
}

enum { THREADS = 20 };
static pthread_barrier_t begun, confined, done;

/* Not one more thread ends before the process does: its end needs other calls. */
static void *run(void *seed) {
    static __thread unsigned char *blocks[300];
    uint64_t state = (uintptr_t)seed;
    pthread_barrier_wait(&begun); /* a thread's own start needs other calls as well */
    pthread_barrier_wait(&confined);
    for (int round = 0; round < 5000; round++) {
        size_t i = random_next(&state) % 300, size = 1 + random_next(&state) % 20000;
        give(blocks[i]);
        CHECK((blocks[i] = take(size)) != NULL);
        blocks[i][0] = blocks[i][size - 1] = 1;
    }
    pthread_barrier_wait(&done);
    for (;;) pthread_barrier_wait(&confined);
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    static unsigned char *blocks[3000];
    uint64_t state = 42;
    give(take(1)); /* the heap is there */
    CHECK(pthread_barrier_init(&begun, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&confined, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&done, NULL, THREADS + 1) == 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run, (void *)(i + 1)) == 0);
    }
    /* Room for them in a fallback window, where there has to be one: it is made after a look at the limits. */
    for (int i = 0; i < 3000; i++) CHECK((blocks[i] = take(15000)) != NULL);
    for (int i = 0; i < 3000; i++) give(blocks[i]), blocks[i] = NULL;
    pthread_barrier_wait(&begun);
    confine(argc == 1);
    pthread_barrier_wait(&confined);
    pthread_barrier_wait(&done);
    for (int round = 0; round < 30000; round++) {
        size_t i = random_next(&state) % 3000, size = 1 + random_next(&state) % 20000;
        if (round % 100 == 0) size *= 40;
        if (blocks[i] != NULL && round % 7 == 0) {
            blocks[i] = resize(blocks[i], size);
        } else {
            give(blocks[i]);
            blocks[i] = take(size);
        }
        CHECK(blocks[i] != NULL);
        blocks[i][0] = blocks[i][size - 1] = 1;
    }
    for (int i = 0; i < 3000; i++) give(blocks[i]);
    sound();
    syscall(SYS_exit_group, 0);
}
