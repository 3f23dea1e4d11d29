/* Children made in every way, while threads allocate, each of which frees what its parent allocated, allocates, and
 * knows its heap as its own: fork, _Fork and a raw clone(2), which run no handlers, and vfork, whose child uses the
 * parent's heap in the parent's memory.
 *
 * usage: ways EACH */
#include "children.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

enum { SLOTS = 256, CHURNERS = 2, COUNT = 300 };

static slot slots[SLOTS];
static atomic_int over;

static void *churn(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    while (!atomic_load(&over))
        block_end(atomic_exchange(&slots[random_next(&state) % SLOTS], block_new(random_size(&state), random_next(&state))));
    return NULL;
}

/* Blocks of the forking thread: the child frees them, the parent keeps its own. */
static struct block *kept[COUNT];

static void refill(uint64_t seed) {
    for (int i = 0; i < COUNT; i++) kept[i] = block_new(8 + (uint32_t)(random_next(&seed) % 9000), seed);
}

static void live_on(void) {
    uint64_t state = 7;
    for (int i = 0; i < COUNT; i++) block_end(kept[i]);
    refill(9);
    for (int i = 0; i < 2000; i++) block_end(block_new(random_size(&state), random_next(&state)));
    for (int i = 0; i < COUNT; i++) block_end(kept[i]);
}

static pid_t by_fork(void) { return fork(); }
static pid_t by_bare_fork(void) { return _Fork(); }
static pid_t by_clone(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL); }

static void try_one(pid_t (*make)(void)) {
    refill((uint64_t)getpid() + 1);
    pid_t child = make();
    CHECK(child >= 0);
    if (child == 0) {
        live_on();
        _exit(0);
    }
    child_end(child);
    for (int i = 0; i < COUNT; i++) block_end(kept[i]);
}

/* Allowed to do little by POSIX; what it does here many programs do. */
static void try_vfork(void) {
    struct block *volatile passed = NULL;
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
        passed = block_new(500, 1);
        block_end(block_new(50000, 2));
        block_end(block_new(500000, 3));
        _exit(0);
    }
    child_end(child);
    block_end(passed);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t churners[CHURNERS];
    for (uintptr_t i = 0; i < CHURNERS; i++) CHECK(pthread_create(&churners[i], NULL, churn, (void *)i) == 0);
    for (int i = atoi(argv[1]); i > 0; i--) {
        try_one(by_fork);
        try_one(by_bare_fork);
        try_one(by_clone);
        try_vfork();
    }
    atomic_store(&over, 1);
    for (int i = 0; i < CHURNERS; i++) CHECK(pthread_join(churners[i], NULL) == 0);
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
