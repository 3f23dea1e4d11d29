/* The owner of all slabs sleeps while others free every block in them. When it wakes, the memory is
 * there again: for itself at once, and for the others once it has made calls.
 *
 * usage: sleeping_owner itself|others */
#include "work.h"

enum { BLOCKS = 60000, FREERS = 3, ROUNDS = 8 };

static struct block *blocks[BLOCKS];

/* Bytes of the heap and beside it, resident or not; zero where the heap does not tell. */
static size_t taken(void) {
    struct slabside_stats stats = figures();
    return stats.break_bytes + stats.mapped;
}

static void allocate_all(uint32_t size) {
    for (int i = 0; i < BLOCKS; i++) blocks[i] = block_new(size, 2 + i % 13);
}

static void *free_share(void *argument) {
    for (intptr_t i = (intptr_t)argument; i < BLOCKS; i += FREERS) block_end(blocks[i]);
    return NULL;
}

/* Others free all, while this thread only waits. */
static void others_free_all(void) {
    pthread_t freers[FREERS];
    for (intptr_t i = 0; i < FREERS; i++) freers[i] = thread_start(free_share, (void *)i);
    for (int i = 0; i < FREERS; i++) thread_end(freers[i]);
}

/* The owner allocates as much again and again: all of it must come out of what was freed. */
static void itself(void) {
    allocate_all(96);
    size_t before = taken();
    for (int i = 0; i < ROUNDS; i++) {
        others_free_all();
        allocate_all(96);
        CHECK(taken() <= before + 256 * KIB);
    }
    others_free_all();
}

static void *allocate_elsewhere(void *unused) {
    (void)unused;
    allocate_all(120);
    return NULL;
}

/* Another thread allocates as much in another size: only slabs that have gone back can serve it. */
static void others(void) {
    allocate_all(120);
    size_t before = taken(), resident_before = resident_bytes();
    others_free_all();
    struct block *own[2000];
    for (int i = 0; i < 2000; i++) own[i] = block_new(120, 2);
    for (int i = 0; i < 2000; i++) block_end(own[i]);
    thread_end(thread_start(allocate_elsewhere, NULL));
    size_t held = (size_t)BLOCKS * 120;
    CHECK(taken() <= before + held / 2);
    CHECK(resident_bytes() <= resident_before + held / 2);
    others_free_all();
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "itself") == 0) itself();
    else others();
    sound();
    return 0;
}
