/* usage: interrupted span|start|fork - a signal handler comes in the middle of a slow path.
 *
 * span: it frees the other block of a pair while one is freed, after each instruction in turn. Both are used again.
 * start: it asks for the profile while a thread gets its heap. It waits for no lock of its own thread's.
 * fork: it forks while another thread may hold a lock, and the child asks for figures. It waits for no thread that is gone. */
#include "../tools.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>

#if defined(__x86_64__)

static volatile long steps, last;
static void (*volatile action)(void);

/* Single steps end with the one at which something is done. */
static void step(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    if (steps++ != last) return;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
    action();
    action = NULL;
}

static inline void begin_steps(void) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc"); }
static inline void end_steps(void) { __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc"); }

static void *volatile other;
static void free_other(void) { give(other); }

static bool is_among(void *block, void *const *blocks, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (blocks[i] == block) return true;
    return false;
}

static void spans(void) {
    enum { SIZE = 100000, AGAIN = 4 };
    long done = 0;
    for (last = 0;; last++) {
        void *first = take(SIZE), *second = take(SIZE), *again[AGAIN];
        other = first;
        action = free_other;
        steps = 0;
        begin_steps();
        give(second);
        end_steps();
        if (action != NULL) break; /* free has ended before that step */
        done++;
        for (size_t i = 0; i < AGAIN; i++) again[i] = take(SIZE);
        CHECK(is_among(first, again, AGAIN) && is_among(second, again, AGAIN));
        for (size_t i = 0; i < AGAIN; i++) give(again[i]);
        CHECK(slabside_validate() == 0);
    }
    CHECK(done > 50);
}

static void ask_for_profile(void) { slabside_profile(0); }

static void *get_heap(void *unused) {
    steps = 0;
    begin_steps();
    void *block = take(24);
    end_steps();
    give(block);
    return unused;
}

static void starts(void) {
    long done = 0;
    give(take(10));
    do {
        last = 5 * done++;
        action = ask_for_profile;
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, get_heap, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(slabside_validate() == 0);
    } while (action == NULL);
    CHECK(done > 20);
}

static atomic_bool over;
static volatile sig_atomic_t forks;

static void *take_large(void *unused) {
    while (!atomic_load(&over))
        for (size_t size = 200000; size < 240000; size += 4096) give(take(size));
    return unused;
}

static void fork_and_ask(int signal) {
    (void)signal;
    int saved = errno, status;
    struct slabside_stats figures;
    pid_t child = fork();
    if (child == 0) {
        slabside_stats(&figures);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    forks++;
    errno = saved;
}

static void children(void) {
    enum { BLOCKS = 64 };
    void *blocks[BLOCKS] = {0};
    uint64_t state = 1;
    pthread_t thread;
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    CHECK(pthread_create(&thread, NULL, take_large, NULL) == 0);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    struct sigaction forks_then = {.sa_handler = fork_and_ask, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &forks_then, NULL) == 0);
    struct itimerval often = {{0, 700}, {0, 700}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (forks < 1000) {
        size_t n = random_next(&state) % BLOCKS;
        give(blocks[n]);
        blocks[n] = take(9000 + random_next(&state) % 100000);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    atomic_store(&over, true);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    struct sigaction steps_then = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &steps_then, NULL) == 0);
    if (strcmp(argv[1], "span") == 0) spans();
    else if (strcmp(argv[1], "start") == 0) starts();
    else children();
    return 0;
}

#else
int main(void) { return 0; }
#endif
