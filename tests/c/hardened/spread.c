/* usage: spread fresh|full|reuse SIZE [BOUND] - how well an attacker can foretell where a block of SIZE bytes lies.
 *
 *   fresh, full   the most frequent distance between two allocations in a row, in per cent of all: in a heap that holds
 *                 nothing else, and in one that was filled and of which a part was freed at random
 *   reuse         after how many pairs of malloc and free a freed block is handed out again: of 240 times the third
 *                 fewest and the third most; "never" stands for as many pairs as were tried
 *
 * Prints it. With BOUND it fails where the share is larger, or the most less than BOUND times the fewest. */
#include "../tools.h"

enum { TIMES = 240, MOST = 4000 };

static int compare(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Percent of the distances between `count` addresses in a row that are the most frequent one. */
static size_t most_frequent(void *const *at, size_t count) {
    static uint64_t step[MOST];
    size_t most = 0, run = 0;
    for (size_t i = 0; i + 1 < count; i++) step[i] = (uint64_t)at[i + 1] - (uint64_t)at[i];
    qsort(step, count - 1, sizeof *step, compare);
    for (size_t i = 0; i + 1 < count; i++) {
        run = i > 0 && step[i] == step[i - 1] ? run + 1 : 1;
        if (run > most) most = run;
    }
    return (100 * most + count - 2) / (count - 1);
}

static size_t steps(size_t size, bool full) {
    static void *at[MOST];
    uint64_t random = 99;
    size_t count = size <= 1024 ? MOST : size <= 131072 ? 1000 : 400;
    for (size_t i = 0; i < count; i++) at[i] = take(size);
    if (!full) return most_frequent(at, count);
    for (size_t i = count - 1; i > 0; i--) {
        size_t other = random_next(&random) % (i + 1);
        void *moved = at[i];
        at[i] = at[other];
        at[other] = moved;
    }
    for (size_t i = 0; i < count / 2; i++) give(at[i]);
    for (size_t i = 0; i < count / 2; i++) at[i] = take(size);
    return most_frequent(at, count / 2);
}

/* How many pairs it takes until a freed block comes back. */
static uint64_t pairs(size_t size, uint64_t most) {
    void *freed = take(size);
    give(freed);
    for (uint64_t count = 1; count < most; count++) {
        void *next = take(size);
        give(next);
        if (next == freed) return count;
    }
    return most;
}

int main(int count, char **words) {
    CHECK(count == 3 || count == 4);
    size_t size = strtoul(words[2], NULL, 10), bound = count == 4 ? strtoul(words[3], NULL, 10) : 0;
    if (strcmp(words[1], "reuse") != 0) {
        size_t share = steps(size, strcmp(words[1], "full") == 0);
        printf("%zu: most frequent step %zu %%\n", size, share);
        return count == 4 && share > bound;
    }
    static uint64_t after[TIMES];
    uint64_t most = size <= 8192 ? 40000 : size <= 131072 ? 2000 : 500;
    for (size_t i = 0; i < TIMES; i++) after[i] = pairs(size, most);
    qsort(after, TIMES, sizeof *after, compare);
    printf("%zu: used again after %zu to %zu%s pairs\n", size, (size_t)after[2], (size_t)after[TIMES - 3],
           after[TIMES - 3] == most ? " (never)" : "");
    return count == 4 && after[2] < most && after[TIMES - 3] < bound * after[2];
}
