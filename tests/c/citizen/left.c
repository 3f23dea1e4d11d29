/* usage: left alone|fork|beside|alternate|coroutine main|thread LENGTH LENGTH [START LENGTH]... - what becomes of a
 * thread whose slow path a signal handler interrupts, and
 *
 *   alone      leaves by siglongjmp, again and again: the thread gets memory as before;
 *   fork       the same, and forks: the child gets memory as before;
 *   beside     the same, while there are other threads: it gets memory, unless the path had a lock. Then it is refused,
 *              and nothing is damaged;
 *   alternate  works on a stack of its own, which may be a part of the thread's: the path is not taken for one that was
 *              left;
 *   coroutine  goes on in a coroutine with such a stack, and comes back later: neither.
 *
 * The program is stepped, so that the handler runs at the n-th instruction of some call, for every n. Left out are the
 * fast paths: malloc and free, of LENGTH bytes, and the functions that lie START bytes from malloc. */
#include "../tools.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>

#if defined(__x86_64__)

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31) /* linux/signal.h */
#endif

enum { LIVE = 300, ROUNDS = 400, LATER = 256 * 1024 };
static const size_t sizes[] = {8, 24, 48, 160, 500, 1000, 1500, 3000, 9000, 20000, 70000, 200000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static unsigned char *live[LIVE];
static size_t size_of[LIVE];
static uint64_t state = 88172645463325252u;
static long wait_for; /* instructions until the handler does its work */
static long stepped, worked;
static sigjmp_buf outside;

struct range {
    uintptr_t start, length;
};
static struct range fast[16];
static size_t ranges;

static bool in_fast_path(void *context) {
    uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    for (size_t i = 0; i < ranges; i++)
        if (at - fast[i].start < fast[i].length) return true;
    return false;
}

static void handle_traps(void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
}

static void step(void) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc"); }
static void run_on(void) { __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc"); }

/* All that is live is as it was written. */
static void check_all(void) {
    for (size_t i = 0; i < LIVE; i++)
        if (live[i] != NULL) CHECK(all_are(live[i], (unsigned char)i, size_of[i] < 256 ? size_of[i] : 256));
}

/* Gives a block back, and takes another one, if there is any. */
static bool replace(size_t i, size_t size) {
    if (live[i] != NULL) give(live[i]);
    live[i] = take(size);
    size_of[i] = size;
    if (live[i] != NULL) memset(live[i], (int)i, size < 256 ? size : 256);
    return live[i] != NULL;
}

/* A call that takes a slow path sooner or later; its block is lost where it is left. */
static void call(uint64_t which) {
    static void *blocks[64];
    void **block = &blocks[which % 64];
    size_t size = sizes[which / 64 % SIZES];
    void *old = *block;
    *block = NULL;
    switch (which / 1024 % 3) {
    case 0:
        step();
        give(old);
        run_on();
        break;
    case 1:
        step();
        *block = take(size);
        run_on();
        give(old);
        break;
    default:
        give(old);
        for (int i = 0; i < 80; i++) blocks[(which + i) % 64] = take(size);
        step();
        *block = aligned_alloc(64, size / 64 * 64 + 64);
        run_on();
    }
}

/* From deeper in the stack than where the thread goes on, or not. */
__attribute__((noinline)) static void call_from(int depth, uint64_t which) {
    volatile char room[3000];
    room[0] = (char)depth;
    if (depth > 0) call_from(depth - 1, which);
    else call(which);
    room[1] = room[0];
}

/* ---- the handler leaves ---- */

static void leave(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    stepped++;
    if (--wait_for <= 0 && !in_fast_path(context)) {
        worked++;
        siglongjmp(outside, 1);
    }
}

/* Writes over what earlier calls left on the stack, as most functions do. */
__attribute__((noinline)) static void write_over(void) {
    volatile char room[20000];
    for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
}

/* Deeper in the stack than the path that was left, or not. */
__attribute__((noinline)) static bool serves_all(int depth) {
    volatile char room[2000];
    room[0] = (char)depth;
    bool all = true;
    if (depth > 0) return serves_all(depth - 1) && room[0] == (char)depth;
    check_all();
    for (size_t n = 0; n < 80; n++) all &= replace(random_next(&state) % LIVE, sizes[random_next(&state) % SIZES]);
    check_all();
    return all;
}

/* One call that is left at its n-th instruction, or ends before. Until the thread uses its stack for something else the
 * path may be taken for one at work. */
static bool leave_at(long n) {
    uint64_t which = random_next(&state);
    wait_for = n;
    if (sigsetjmp(outside, 1) == 0) call_from((int)(n % 4), which);
    if (n % 3 == 0) serves_all(0);
    write_over();
    return serves_all((int)(n % 3));
}

static void alone(void) {
    handle_traps(leave, 0);
    for (int n = 0; n < ROUNDS; n++) CHECK(leave_at(n % 10 == 0 ? n : n % 150 + 1));
    CHECK(worked > 120);
    sound();
}

/* The child's first call finds that it was forked, and that its parent's thread had left a path. */
static void forking(void) {
    handle_traps(leave, 0);
    long left = 0;
    for (int n = 1; n <= 60; n++) {
        long before = worked;
        wait_for = 3 * n;
        if (sigsetjmp(outside, 1) == 0) call_from(n % 4, random_next(&state));
        left += worked > before;
        write_over();
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 3; i++) CHECK(serves_all(0));
            sound();
            _exit(0);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
        CHECK(serves_all(0));
    }
    CHECK(left > 20);
    sound();
}

static volatile long turns;

/* Another thread, at work all the time. */
static void *other(void *unused) {
    uint64_t own_state = 1;
    unsigned char *blocks[50] = {0};
    for (;;) {
        size_t i = random_next(&own_state) % 50, size = sizes[random_next(&own_state) % SIZES];
        if (blocks[i] != NULL) CHECK(all_are(blocks[i], (unsigned char)i, 8));
        give(blocks[i]);
        if ((blocks[i] = take(size)) != NULL) memset(blocks[i], (int)i, 8);
        turns++;
    }
    return unused;
}

static bool all_served = true;

static void *leave_and_go_on(void *n) {
    for (int i = 0; i < 6; i++) all_served &= leave_at((2 * (long)(intptr_t)n + 97 * i) % 1000);
    return NULL;
}

/* Where the thread is served, so is everybody. */
static void expect_progress(void) {
    for (int i = 0; i < 2; i++)
        for (long before = turns; turns < before + 100;) usleep(1000);
    check_all();
}

/* Where it is not, it has a few blocks more, and then none; what it frees hangs nobody. */
static void expect_refusals(void) {
    for (int i = 0; i < 100; i++) {
        errno = 0;
        void *block = take(20000);
        CHECK(block != NULL || errno == ENOMEM);
        if (i == 99) CHECK(block == NULL);
    }
    check_all();
    for (size_t i = 0; i < LIVE; i++) give(live[i]);
}

/* Each in a process of its own: what a path has locked that was left nobody gets any more. */
static void beside(void) {
    handle_traps(leave, 0);
    long left = 0, served = 0;
    for (long n = 1; n <= 60; n++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t worker, thread;
            CHECK(pthread_create(&worker, NULL, other, NULL) == 0);
            state += (uint64_t)n * 0x9e3779b97f4a7c15;
            if (n % 2 == 0) {
                /* A thread that ends after that. */
                CHECK(pthread_create(&thread, NULL, leave_and_go_on, (void *)n) == 0);
                CHECK(pthread_join(thread, NULL) == 0);
            } else {
                leave_and_go_on((void *)n);
                if (!all_served) expect_refusals();
            }
            if (all_served) expect_progress();
            _exit(worked == 0 ? 10 : all_served ? 11 : 12);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) >= 10);
        left += WEXITSTATUS(status) > 10;
        served += WEXITSTATUS(status) == 11;
    }
    CHECK(left > 20);
    CHECK(served > 10 && served < left); /* both kinds are met */
}

/* ---- the handler works elsewhere ---- */

static unsigned char *own[32];
static long taken, refused;

/* Takes and gives blocks, without a care for the path that was interrupted. */
static void work(void) {
    size_t i = random_next(&state) % 32;
    if (own[i] != NULL) {
        CHECK(all_are(own[i], (unsigned char)i, 100));
        give(own[i]);
        own[i] = NULL;
    } else if ((own[i] = take(100)) != NULL) {
        memset(own[i], (int)i, 100);
        taken++;
    } else {
        refused++;
    }
}

static void work_elsewhere(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    stepped++;
    int saved = errno;
    if (stepped % 3 == 0 && !in_fast_path(context)) work();
    errno = saved;
}

static void run_stepped(void) {
    for (int i = 0; i < 60; i++) {
        call_from(i % 4, random_next(&state));
        CHECK(serves_all(0));
    }
    sound();
    CHECK(taken > 20);
}

static void alternate(void) {
    /* A part of the thread's own stack above the path, and elsewhere. */
    char above[LATER / 4];
    static char below[LATER / 4];
    char *stacks[] = {above, below};
    /* Where the kernel says that the handler is on it, and where it does not. */
    static const int flags[] = {0, (int)SS_AUTODISARM};
    handle_traps(work_elsewhere, SA_ONSTACK);
    for (int i = 0; i < 4; i++) {
        stack_t stack = {.ss_sp = stacks[i % 2], .ss_size = LATER / 4, .ss_flags = flags[i / 2]};
        CHECK(sigaltstack(&stack, NULL) == 0);
        run_stepped();
    }
    stack_t none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&none, NULL) == 0);
}

static ucontext_t of_path, of_coroutine;

static void coroutine(void) {
    for (;;) {
        work();
        CHECK(swapcontext(&of_coroutine, &of_path) == 0);
    }
}

static void go_on_elsewhere(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    stepped++;
    if (stepped % 3 == 0 && !in_fast_path(context)) CHECK(swapcontext(&of_path, &of_coroutine) == 0);
}

static void coroutines(void) {
    char above[LATER / 4];
    static char below[LATER / 4];
    char *stacks[] = {above, below};
    handle_traps(go_on_elsewhere, 0);
    for (int i = 0; i < 2; i++) {
        CHECK(getcontext(&of_coroutine) == 0);
        of_coroutine.uc_stack = (stack_t){.ss_sp = stacks[i], .ss_size = LATER / 4};
        makecontext(&of_coroutine, coroutine, 0);
        run_stepped();
    }
}

/* ---- */

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {{"alone", alone}, {"fork", forking}, {"beside", beside}, {"alternate", alternate}, {"coroutine", coroutines}};

static void (*way)(void);

static void *in_thread(void *unused) {
    way();
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc > 4);
    fast[ranges++] = (struct range){(uintptr_t)malloc, strtoul(argv[3], NULL, 0)};
    fast[ranges++] = (struct range){(uintptr_t)free, strtoul(argv[4], NULL, 0)};
    for (int i = 5; i + 1 < argc; i += 2) {
        CHECK(ranges < sizeof fast / sizeof *fast);
        uintptr_t start = (uintptr_t)malloc + strtoul(argv[i], NULL, 0);
        fast[ranges++] = (struct range){start, strtoul(argv[i + 1], NULL, 0)};
    }
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0) way = ways[i].run;
    CHECK(way != NULL);
    for (size_t i = 0; i < LIVE; i++) CHECK(replace(i, sizes[i % SIZES]));
    if (strcmp(argv[2], "thread") == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    } else {
        way();
    }
    puts("done");
    return 0;
}

#else
int main(void) {
    puts("done");
    return 0;
}
#endif
