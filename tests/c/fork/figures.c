/* A child's figures begin as its parent's, follow what it does itself, and leave its parent's alone.
 * Where the heap's figures cannot be asked for, there is nothing to see. */
#include "children.h"

enum { BLOCKS = 20000, SIZE = 96, BYTES = BLOCKS * SIZE, SLACK = 64 << 10 };

static struct block *blocks[BLOCKS];
static struct slabside_stats at_fork;

/* The figures, which must agree with each other. */
static struct slabside_stats sane_figures(void) {
    struct slabside_stats stats = figures();
    CHECK(stats.live <= stats.peak);
    CHECK(stats.live <= stats.handed_out);
    CHECK(stats.break_bytes <= stats.break_peak);
    CHECK(stats.live <= stats.break_bytes + stats.mapped);
    return stats;
}

static void allocate_all(void) {
    for (int i = 0; i < BLOCKS; i++) blocks[i] = block_new(SIZE, 2);
}

static void free_all(void) {
    for (int i = 0; i < BLOCKS; i++) block_end(blocks[i]);
}

static void *allocate_in_thread(void *unused) {
    (void)unused;
    allocate_all();
    return NULL;
}

static void live_as_child(void) {
    struct slabside_stats now = sane_figures();
    CHECK(now.live + SLACK >= at_fork.live && now.live <= at_fork.live + SLACK);
    CHECK(now.slabs >= at_fork.slabs / 2 && now.slabs <= at_fork.slabs + 16);
    free_all(); /* a thread allocated them that this process never had */
    now = sane_figures();
    CHECK(now.live + BYTES <= at_fork.live + SLACK);
    allocate_all();
    now = sane_figures();
    CHECK(now.live + SLACK >= at_fork.live);
    CHECK(now.break_bytes <= at_fork.break_bytes + SLACK * 4); /* the parent's slabs served */
    free_all();
    sound();
}

int main(void) {
#ifndef PREFIXED
    if (slabside_stats == NULL) return 0;
#endif
    thread_end(thread_start(allocate_in_thread, NULL));
    at_fork = sane_figures();
    CHECK(at_fork.live >= BYTES && at_fork.live <= BYTES + MIB);
    pid_t child = child_start();
    if (child == 0) {
        live_as_child();
        exit(0);
    }
    child_end(child);
    struct slabside_stats after = sane_figures();
    CHECK(after.live + SLACK >= at_fork.live && after.live <= at_fork.live + SLACK);
    CHECK(after.slabs == at_fork.slabs);
    free_all();
    sound();
    return 0;
}
