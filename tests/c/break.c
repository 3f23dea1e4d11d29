/* usage: break [alone] - the break moves in whole pages, first by no more than is needed, and later in growing batches.
 * The first steps are looked at where this program is alone on the heap. */
#include "tools.h"

static char *last;
static int moves;

/* Counts a move of the break, if there was one. */
static void look(void) {
    char *now = break_now();
    if (now == last) return;
    CHECK((now - last) % PAGE_BYTES == 0);
    moves++;
    last = now;
}

static void first_steps(void) {
    static const size_t sizes[] = {1, 10, 40, 100, 24, 60, 33, 17, 80, 5};
    char *start = break_now();
    CHECK(take(24) != NULL);
    CHECK(break_now() - start <= 4 * PAGE_BYTES);
    for (int i = 0; i < 10; i++) CHECK(take(sizes[i]) != NULL);
    CHECK(break_now() - start <= 16 * PAGE_BYTES);
}

static void many_small(void) {
    size_t before = figures().break_moves;
    for (int i = 0; i < 200000; i++) {
        CHECK(take(8) != NULL);
        look();
    }
    CHECK(moves <= 60);
    CHECK(figures().break_moves - before <= 60);
}

static void all_sizes(void) {
    static void *table[1000];
    uint64_t state = 1;
    for (int i = 0; i < 100000; i++) {
        void **place = &table[random_next(&state) % 1000];
        give(*place);
        *place = take(random_next(&state) % (random_next(&state) % 16 ? 500 : 50000));
        look();
    }
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) first_steps();
    last = break_now();
    many_small();
    all_sizes();
    return 0;
}
