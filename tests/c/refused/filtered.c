/* usage: filtered CALL FROM TO STEP - a real process whose kernel refuses all such calls from some point on.
 *
 *   CALL  mmap, munmap, mremap, mprotect, madvise, all (by a seccomp filter: ENOMEM), sbrk (by a mapping behind
 *         the break)
 *
 * For k from FROM to TO in steps of STEP a forked child with three threads plays k operations each, then the
 * refusals begin, and it goes on with the same script: no block's bytes may change, and it ends properly. */
#include "../filter.h"
#include "script.h"

#include <linux/audit.h>
#include <sys/syscall.h>

enum { THREADS = 3 };
static enum call refused;
static long before;
static pthread_barrier_t meeting;

static void refuse_break(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, flags, -1, 0) == end);
}

/* From now on the kernel refuses the calls to all threads. */
static void refuse(void) {
    static const unsigned numbers[] = {SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise};
    if (refused == SBRK || refused == ALL) refuse_break();
    if (refused == SBRK) return;
    struct sock_filter code[32];
    unsigned n = 0;
    code[n++] = (struct sock_filter)LOAD_NUMBER;
    for (enum call call = MMAP; call <= MADVISE; call++) {
        if (refused != ALL && refused != call) continue;
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[call], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    install_filter(code, n, SECCOMP_FILTER_FLAG_TSYNC);
}

static void *play_on(void *part) {
    play(part, (int)before);
    pthread_barrier_wait(&meeting);
    pthread_barrier_wait(&meeting);
    play(part, 300);
    return NULL;
}

static int run(long k) {
    static struct part parts[THREADS];
    pthread_t threads[THREADS];
    before = k;
    CHECK(pthread_barrier_init(&meeting, NULL, THREADS + 1) == 0);
    for (int i = 0; i < THREADS; i++) {
        parts[i].random = 1 + (uint64_t)i;
        CHECK(pthread_create(&threads[i], NULL, play_on, &parts[i]) == 0);
    }
    pthread_barrier_wait(&meeting);
    refuse();
    pthread_barrier_wait(&meeting);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) clear(&parts[i]);
    sound();
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    refused = call_named(argv[1]);
    for (long k = atol(argv[2]); k < atol(argv[3]); k += atol(argv[4])) in_child(run, k);
    return 0;
}
