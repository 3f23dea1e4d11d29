/* Threads that begin while many others have heaps, so that one heap for all of them serves their first calls.
 *
 * usage: guests meet ROUNDS     they begin at the same moment, and free each other's blocks
 *        guests fork ROUNDS     another thread forks meanwhile
 *        guests left            a handler leaves the n-th instruction of a first call by siglongjmp, for every third n:
 *                               the thread, those after it and late ones are served as before */
#include "../fork/children.h"

#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>

enum { CROWD = 10, GUESTS = 16, CALLS = 24, SLOTS = GUESTS * CALLS, LEFT = 9 };

static pthread_barrier_t settled, begin;
static slot handed[SLOTS];

/* Has a heap, and sleeps for good. */
static void *settle(void *argument) {
    for (int i = 0; i < 100; i++) block_end(block_new(100, 2));
    pthread_barrier_wait(&settled);
    for (;;) pause();
    return argument;
}

/* From here on threads begin as guests. */
static void gather(void) {
    CHECK(pthread_barrier_init(&settled, NULL, CROWD + 1) == 0);
    for (int i = 0; i < CROWD; i++) thread_start(settle, NULL);
    pthread_barrier_wait(&settled);
}

/* Hands its blocks on, and frees what others handed on. Some of its calls are those of a guest. */
static void *meet(void *argument) {
    uint64_t state = (uint64_t)(uintptr_t)argument;
    pthread_barrier_wait(&begin);
    for (int i = 0; i < CALLS; i++) {
        struct block *b = block_new(8 + (uint32_t)(random_next(&state) >> 20) % 900, random_next(&state));
        block_end(atomic_exchange(&handed[random_next(&state) % SLOTS], b));
    }
    return NULL;
}

static void start_guests(pthread_t *threads, long round) {
    for (int i = 0; i < GUESTS; i++)
        threads[i] = thread_start(meet, (void *)(intptr_t)((round * GUESTS + i + 1) * 0x9e3779b97f4a7c15));
}

static void end_guests(const pthread_t *threads) {
    for (int i = 0; i < GUESTS; i++) thread_end(threads[i]);
}

static void meet_often(long rounds) {
    pthread_t threads[GUESTS];
    for (long round = 0; round < rounds; round++) {
        CHECK(pthread_barrier_init(&begin, NULL, GUESTS) == 0);
        start_guests(threads, round);
        end_guests(threads);
        if (round % 10 == 0) slots_end(handed, SLOTS);
    }
    slots_end(handed, SLOTS);
}

/* The child is as a process of one thread, and then has many again. */
static void live_as_child(long round) {
    slots_end(handed, SLOTS);
    if (round % 4 == 0) gather();
    meet_often(2);
    sound();
    _exit(0);
}

static void fork_often(long rounds) {
    pthread_t threads[GUESTS];
    for (long round = 0; round < rounds; round++) {
        CHECK(pthread_barrier_init(&begin, NULL, GUESTS + 1) == 0);
        start_guests(threads, round);
        pthread_barrier_wait(&begin);
        for (volatile long i = 0; i < round * 97 % 20000; i++) continue;
        pid_t child = child_start();
        if (child == 0) live_as_child(round);
        end_guests(threads);
        child_end(child);
    }
    slots_end(handed, SLOTS);
}

#if defined(__x86_64__)

static sigjmp_buf outside;
static long wait_for;
static struct block *others[4];

static void step(void) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc"); }
static void run_on(void) { __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc"); }

static void leave(int signal) {
    (void)signal;
    if (--wait_for <= 0) siglongjmp(outside, 1);
}

/* Writes over what earlier calls left on the stack, as most functions do. */
__attribute__((noinline)) static void write_over(void) {
    volatile char room[20000];
    for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
}

static void take_and_give(void) {
    struct block *mine[40];
    for (uint32_t i = 0; i < 40; i++) mine[i] = block_new(8 + i * 20, 2);
    for (int i = 0; i < 40; i++) block_end(mine[i]);
}

/* After the exit hook, in the last rounds of destructors. */
static pthread_key_t key;

static void call_late(void *round) {
    take_and_give();
    if ((intptr_t)round < PTHREAD_DESTRUCTOR_ITERATIONS) pthread_setspecific(key, (void *)((intptr_t)round + 1));
}

static void *serve(void *unused) {
    take_and_give();
    pthread_setspecific(key, (void *)1);
    return unused;
}

static void *hand_on(void *unused) {
    for (int i = 1; i < 4; i++) others[i] = block_new(100, 2);
    return unused;
}

/* The first call ends early: a malloc, or a free of another thread's block. Gives whether it did. */
static void *leave_first(void *block) {
    volatile intptr_t left = 1;
    if (sigsetjmp(outside, 1) == 0) {
        step();
        if (block != NULL) give(block);
        else give(take(100));
        run_on();
        left = 0;
    }
    write_over();
    take_and_give();
    pthread_setspecific(key, (void *)1);
    return (void *)left;
}

/* `kind`: a malloc, a free of a block of the first thread's, or of a guest's. */
static int leave_at(long n, int kind) {
    void *left;
    gather();
    others[0] = block_new(100, 2);
    /* The guests' heap has slots then. */
    thread_end(thread_start(serve, NULL));
    thread_end(thread_start(hand_on, NULL));
    wait_for = n;
    pthread_t thread = thread_start(leave_first, kind == 0 ? NULL : others[kind - 1]);
    CHECK(pthread_join(thread, &left) == 0);
    for (int i = 0; i < 3; i++) thread_end(thread_start(serve, NULL));
    take_and_give();
    for (int i = 2; i < 4; i++) block_end(others[i]);
    return left != NULL ? LEFT : 0;
}

static void leave_everywhere(void) {
    CHECK(pthread_key_create(&key, call_late) == 0);
    CHECK(signal(SIGTRAP, leave) != SIG_ERR);
    for (int kind = 0; kind < 3; kind++) {
        int status = LEFT << 8;
        long n = 0;
        /* What was locked stays so: each in a process of its own. */
        while (status == LEFT << 8) {
            pid_t child = child_start();
            n += 3;
            if (child == 0) _exit(leave_at(n, kind));
            CHECK(waitpid(child, &status, 0) == child);
        }
        if (status != 0) fprintf(stderr, "kind %d, instruction %ld, status %x\n", kind, n, status);
        CHECK(status == 0 && n > 60);
    }
}

#else
static void leave_everywhere(void) {}
#endif

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (strcmp(argv[1], "left") == 0) {
        leave_everywhere();
        return 0;
    }
    CHECK(argc == 3);
    gather();
    if (strcmp(argv[1], "meet") == 0) meet_often(atol(argv[2]));
    else fork_often(atol(argv[2]));
    sound();
    return 0;
}
