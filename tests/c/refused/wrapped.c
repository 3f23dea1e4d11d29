/* usage: wrapped CALL MODE FROM TO - a real process in which the system refuses.
 *
 *   CALL  mmap, munmap, mremap, mprotect, madvise, sbrk, all
 *   MODE  once (the k-th such call of the allocator's fails), on (all from the k-th on), burst (at random,
 *         several in a row; k is the seed)
 *
 * For each k from FROM to TO a forked child plays the same script with three threads, in which every block's
 * bytes are checked before it goes; then the books must balance, and when the system gives again, so must the
 * allocator. A filter traps the system calls that the program's own text makes, which are those of the static
 * library; libc's own go on. Its sbrk is wrapped by the linker. Says how many children met a refusal, and ends early
 * when one met none: then there are no more calls. */
#include "../filter.h"
#include "script.h"

#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <ucontext.h>

static enum call refused;
static enum mode { ONCE, ON, BURST, NEVER } wanted, mode = NEVER;
static long at, calls, refusals;

/* Whether this call fails. Any thread may ask; takes no lock. */
static bool fails(enum call call) {
    if (mode == NEVER || (refused != ALL && refused != call)) return false;
    long n = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    uint64_t draw = (uint64_t)(n / 4 + 1) * 0x9e3779b97f4a7c15ULL + (uint64_t)at * 0xd1342543de82ef95ULL;
    bool fail = mode == ONCE ? n == at : mode == ON ? n >= at : random_next(&draw) >> 62 == 0;
    if (fail) {
        __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
        errno = ENOMEM;
    }
    return fail;
}

/* The numbers of the calls from MMAP to MADVISE. */
static const unsigned numbers[] = {SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise};

/* A trapped call is made here instead, by libc's text, or fails. */
static void trapped(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int saved = errno;
    enum call call = MMAP;
    (void)signal;
    while (call < MADVISE && numbers[call] != (unsigned)info->si_syscall) call++;
    long result = -ENOMEM;
    if (!fails(call)) {
        result = syscall(info->si_syscall, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_R10],
                         registers[REG_R8], registers[REG_R9]);
        if (result == -1) result = -errno;
    }
    registers[REG_RAX] = result;
    errno = saved;
}

extern const char __executable_start[], etext[];

/* The filter compares halves of addresses: the program's text must not cross a multiple of 4 GiB. Where it lies is the
 * kernel's choice, so a program that crosses one starts itself again. */
static void lie_well(char **argv) {
    if ((uintptr_t)__executable_start >> 32 == (uintptr_t)etext >> 32) return;
    execv("/proc/self/exe", argv);
    CHECK(!"itself again");
}

/* From now on the memory calls of the program's own text are trapped. */
static void trap_calls(void) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    uint64_t start = (uintptr_t)__executable_start, end = (uintptr_t)etext;
    CHECK(sigaction(SIGSYS, &action, NULL) == 0 && start >> 32 == end >> 32);
    enum { LOW = offsetof(struct seccomp_data, instruction_pointer), CALLS = sizeof numbers / sizeof *numbers };
    struct sock_filter code[6 + CALLS + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(start >> 32), 0, 4 + CALLS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)start, 0, 2 + CALLS),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)end, 1 + CALLS, 0),
        LOAD_NUMBER,
    };
    unsigned n = 6;
    for (unsigned i = 0; i < CALLS; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], (uint8_t)(CALLS - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    install_filter(code, n, 0);
}

void *__real_sbrk(intptr_t);
void *__wrap_sbrk(intptr_t delta) { return delta != 0 && fails(SBRK) ? (void *)-1 : __real_sbrk(delta); }

enum { THREADS = 3, MET = 0, NONE = 2 };

static void *play_half(void *part) {
    play(part, 150);
    return NULL;
}

static void *clear_all(void *part) {
    clear(part);
    return NULL;
}

/* What a child does: NONE where it met no refusal. */
static int run(long k) {
    static struct part parts[THREADS];
    pthread_t threads[THREADS];
    trap_calls();
    at = k;
    mode = wanted;
    /* The break is moved beside another malloc only while there is one thread. */
    parts[0].random = 99;
    play_half(&parts[0]);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < THREADS; i++) {
            parts[i].random = 1 + (uint64_t)i + 10 * (uint64_t)round;
            CHECK(pthread_create(&threads[i], NULL, play_half, &parts[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        sound();
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, clear_all, &parts[(i + 1) % THREADS]) == 0);
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    sound();
    CHECK(figures().live == 0);
    mode = NEVER;
    for (size_t i = 0; i < 8; i++) {
        void *block = malloc(most[i]);
        CHECK(block != NULL);
        free(block);
    }
    sound();
    return refusals > 0 ? MET : NONE;
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    lie_well(argv);
    refused = call_named(argv[1]);
    wanted = strcmp(argv[2], "once") == 0 ? ONCE : strcmp(argv[2], "on") == 0 ? ON : BURST;
    long met = 0;
    for (long k = atol(argv[3]); k < atol(argv[4]); k++) {
        bool none = in_child(run, k) == NONE;
        met += !none;
        if (none && wanted != BURST) break;
    }
    dprintf(STDOUT_FILENO, "%ld\n", met);
    return 0;
}
