/* Blocks of more than 1 KiB are freed beside scattered survivors. survivors burst SIZE KEPT ORDER: of 64 MB of blocks of
 * SIZE bytes all but one in KEPT are freed, in order or at random, and no call follows. Hardly more than the pages with
 * live ones stays. survivors swell SIZE KEPT: the others are taken and freed again and again, where KEPT is 0 all of
 * them. The program pays page faults for a few such rounds only. Some may be lost to a machine that lets the program wait. */
#include "../tools.h"

#include <sys/resource.h>

enum { BURST = 64000000, LEAST_SIZE = 1025, MOST = BURST / LEAST_SIZE, ROUNDS = 40 };

static void *blocks[MOST];
static size_t order[MOST];

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* The blocks that are to be freed, in their order or at random. Returns how many. */
static size_t choose(size_t count, size_t kept, bool shuffled) {
    size_t n = 0;
    uint64_t random = 88172645463325252;
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || i % kept != 0) order[n++] = i;
    for (size_t i = n; shuffled && i > 1; i--) {
        size_t other = random_next(&random) % i, last = order[i - 1];
        order[i - 1] = order[other], order[other] = last;
    }
    return n;
}

static void take_chosen(size_t n, size_t size) {
    for (size_t i = 0; i < n; i++) blocks[order[i]] = memset(take(size), 1, size);
}
static void free_chosen(size_t n) {
    for (size_t i = 0; i < n; i++) give(blocks[order[i]]);
}

int main(int argc, char **argv) {
    CHECK(argc >= 4);
    bool swells = strcmp(argv[1], "swell") == 0;
    size_t size = strtoul(argv[2], NULL, 10), kept = strtoul(argv[3], NULL, 10), count = BURST / size;
    CHECK(size >= LEAST_SIZE);
    small_pages_only();
    memset(blocks, 1, sizeof blocks), memset(order, 1, sizeof order);
    give(take(1));
    size_t before = resident_bytes();
    for (size_t i = 0; i < count; i++) blocks[i] = memset(take(size), 1, size);
    size_t chosen = choose(count, kept, argc == 5 && strcmp(argv[4], "random") == 0);
    free_chosen(chosen);
    if (!swells) {
        size_t live = (count - chosen) * (size + PAGE_BYTES), resident = resident_bytes() - before;
        if (resident > live + 8 * MIB) dprintf(STDERR_FILENO, "%zu bytes for %zu\n", resident, live);
        CHECK(resident <= live + 8 * MIB);
        sound();
        return 0;
    }
    long first = faults();
    for (int round = 0; round < ROUNDS; round++) take_chosen(chosen, size), free_chosen(chosen);
    long paid = faults() - first, each = (long)(chosen * size / PAGE_BYTES);
    if (paid > ROUNDS / 2 * each) dprintf(STDERR_FILENO, "%ld faults, %ld a round\n", paid, each);
    CHECK(paid <= ROUNDS / 2 * each);
    sound();
    return 0;
}
