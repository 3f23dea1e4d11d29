/* usage: left_again START LENGTH ... - a thread beside another one is stepped through malloc. Between any two instructions
 * of the functions that lie START bytes from malloc and are LENGTH bytes long, a signal handler allocates, frees, or leaves
 * malloc by siglongjmp. So a handler mends what was left before, at a moment when the thread has begun the next malloc: no
 * block is damaged, and the program goes on. */
#include "../tools.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ucontext.h>

#if defined(__x86_64__)

enum { RANGES = 16, LIVE = 700, GIVEN = 400, HELD = 64, WARM = 200000, ROUNDS = 3000, ACTS = 6, JUMPS = 60 };
#define SIZE 40
struct range {
    uintptr_t start, length;
};

static struct range stepped[RANGES];
static size_t ranges, acts;
static unsigned char *live[LIVE], *given[GIVEN], *held[HELD];
static uint64_t own = 88172645463325252u, handlers = 99991;
static sigjmp_buf before;
static volatile bool may_jump;
static volatile size_t jumps;

static unsigned char *made(unsigned char *block) {
    if (block != NULL) memset(block, (int)((uintptr_t)block >> 3), SIZE);
    return block;
}

static void end(unsigned char **block) {
    if (*block == NULL) return;
    CHECK(all_are(*block, (unsigned char)((uintptr_t)*block >> 3), SIZE));
    give(*block);
    *block = NULL;
}

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    bool inside = false;
    for (size_t i = 0; i < ranges; i++) inside |= at - stepped[i].start < stepped[i].length;
    if (!inside || random_next(&handlers) % ACTS != 0) return;
    acts++;
    if (may_jump && random_next(&handlers) % JUMPS == 0) {
        may_jump = false;
        jumps = jumps + 1;
        siglongjmp(before, 1);
    }
    for (uint64_t n = 1 + random_next(&handlers) % 4; n > 0; n--) {
        unsigned char **block = &held[random_next(&handlers) % HELD];
        if (random_next(&handlers) % 2 == 0) end(&given[random_next(&handlers) % GIVEN]);
        else if (*block != NULL) end(block);
        else *block = made(take(SIZE));
    }
}

/* Sets the trap flag, so that every instruction from now on raises SIGTRAP, and clears it again. */
static inline void step(void) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc"); }
static inline void run_on(void) { __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc"); }

static void *sleep_on(void *unused) {
    (void)unused;
    give(take(SIZE));
    for (;;)
        if (pause() == 0) return NULL;
}

static void work(void) {
    unsigned char **block = &live[random_next(&own) % LIVE];
    unsigned char **other = &given[random_next(&own) % GIVEN];
    if (*block != NULL && *other == NULL && random_next(&own) % 3 == 0) {
        *other = *block;
        *block = NULL;
    }
    end(block);
    if (sigsetjmp(before, 1) != 0) {
        run_on();
        return;
    }
    may_jump = true;
    step();
    unsigned char *fresh = take(SIZE);
    run_on();
    may_jump = false;
    *block = made(fresh);
    if (random_next(&own) % 97 == 0)
        for (int i = 0; i < GIVEN; i++) end(&given[i]);
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        CHECK(ranges < RANGES);
        uintptr_t start = (uintptr_t)malloc + strtoul(argv[i], NULL, 0);
        stepped[ranges++] = (struct range){start, strtoul(argv[i + 1], NULL, 0)};
    }
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sleep_on, NULL) == 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    for (int i = 0; i < WARM; i++) {
        unsigned char **block = &live[random_next(&own) % LIVE];
        end(block);
        *block = made(take(SIZE));
    }
    for (int i = 0; i < ROUNDS; i++) work();
    for (int i = 0; i < LIVE; i++) end(&live[i]);
    for (int i = 0; i < GIVEN; i++) end(&given[i]);
    for (int i = 0; i < HELD; i++) end(&held[i]);
    CHECK(acts > 500 && jumps > 10);
    puts("done");
    return 0;
}

#else
int main(void) {
    puts("done");
    return 0;
}
#endif
