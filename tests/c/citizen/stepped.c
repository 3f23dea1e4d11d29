/* usage: stepped START LENGTH ... - the program is stepped, and between any two instructions of it and of the
 * allocator's slow paths a signal handler allocates and frees on the same thread: it gets memory or NULL, and
 * no block is lost, damaged or handed out twice.
 *
 * Left out are the instructions of the fast paths: malloc and free themselves and the functions that lie START
 * bytes from malloc and are LENGTH bytes long, in which allocating from a handler is undefined. */
#include "../tools.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/ucontext.h>

#if defined(__x86_64__)

enum { RANGES = 16, HELD = 64, LIVE = 400 };
struct range {
    uintptr_t start, length;
};
struct block {
    unsigned char *start;
    size_t size;
    unsigned char tag;
};

static struct range skipped[RANGES];
static size_t ranges;
static struct block held[HELD], live[LIVE];
static size_t traps, taken, refused, given, outside;
static uint64_t state = 88172645463325252u;
static unsigned char tag;
static const size_t sizes[] = {8, 16, 48, 160, 160, 160, 500, 1000, 3000, 20000, 60000, 200000};

static size_t any_size(void) { return sizes[random_next(&state) % (sizeof sizes / sizeof *sizes)]; }

static void fill(struct block *block, size_t size) {
    block->size = size;
    block->tag = ++tag;
    memset(block->start, block->tag, size < 4096 ? size : 4096);
}

static void check(const struct block *block) {
    CHECK(all_are(block->start, block->tag, block->size < 4096 ? block->size : 4096));
}

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    traps++;
    for (size_t i = 0; i < ranges; i++)
        if (at - skipped[i].start < skipped[i].length) return;
    outside++;
    struct block *block = &held[random_next(&state) % HELD];
    int saved = errno;
    if (block->start != NULL) {
        check(block);
        give(block->start);
        block->start = NULL;
        given++;
    } else {
        size_t size = any_size();
        if ((block->start = take(size)) != NULL) {
            fill(block, size);
            taken++;
        } else {
            refused++;
        }
    }
    errno = saved;
}

/* Sets the trap flag, so that every instruction from now on raises SIGTRAP, and clears it again. */
static inline void step(void) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc"); }
static inline void run_on(void) { __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc"); }

__attribute__((noinline)) static void work(void) {
    struct block *block = &live[random_next(&state) % LIVE];
    if (block->start != NULL) {
        check(block);
        unsigned char *start = block->start;
        size_t size = block->size;
        bool resized = random_next(&state) % 8 == 0;
        if (resized) size = any_size();
        if (size + block->size > 2000 && (size < 200000 || block->size < 200000))
            resized = false; /* each byte of a long copy would raise a signal */
        step();
        if (resized) start = resize(start, size);
        else give(start);
        run_on();
        block->start = resized ? start : NULL;
        if (resized) {
            CHECK(start != NULL);
            CHECK(all_are(start, block->tag, size < block->size ? size < 4096 ? size : 4096
                                                                : block->size < 4096 ? block->size : 4096));
            fill(block, size);
        }
        return;
    }
    size_t size = any_size();
    step();
    unsigned char *start = take(size);
    run_on();
    CHECK(start != NULL);
    block->start = start;
    fill(block, size);
}

int main(int argc, char **argv) {
    skipped[ranges++] = (struct range){(uintptr_t)malloc, strtoul(argv[1], NULL, 0)};
    skipped[ranges++] = (struct range){(uintptr_t)free, strtoul(argv[2], NULL, 0)};
    for (int i = 3; i + 1 < argc; i += 2) {
        CHECK(ranges < RANGES);
        uintptr_t start = (uintptr_t)malloc + strtoul(argv[i], NULL, 0);
        skipped[ranges++] = (struct range){start, strtoul(argv[i + 1], NULL, 0)};
    }
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    for (int i = 0; i < 1000; i++) work();
    sound();
    for (int i = 0; i < HELD; i++)
        if (held[i].start != NULL) {
            check(&held[i]);
            give(held[i].start);
        }
    for (int i = 0; i < LIVE; i++)
        if (live[i].start != NULL) {
            check(&live[i]);
            give(live[i].start);
        }
    sound();
    if (figures().slabs != 0) { /* the figures are there: nothing is left behind but what is kept for reuse */
        for (int i = 0; i < 2000; i++) give(take(any_size()));
        CHECK(figures().live < 400000);
    }
    CHECK(traps > 50000 && taken > 5000 && given > 5000 && refused > 1000);
    CHECK(outside > traps / 2);
    puts("done");
    return 0;
}

#else
int main(void) {
    puts("done");
    return 0;
}
#endif
