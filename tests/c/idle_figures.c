/* The figures say where idle memory lies: with the live bytes and the metadata they add up to what is resident, before a
 * trim and after. */
#include "tools.h"

#include <malloc.h>

enum { KINDS = 3, TOTAL = 40000000, KEPT = 32 };

static const size_t sizes[KINDS] = {300, 40000, 1000000};
static void *block[KINDS][TOTAL / 300];

/* Resident bytes that no figure names are at most a twentieth and 1 MiB, and so are named ones that are not resident. */
static struct slabside_stats add_up(size_t apart) {
    struct slabside_stats now = figures();
    size_t sum = now.live + now.idle_slots + now.idle_spans + now.idle_pages + now.idle_large + now.metadata;
    size_t resident = resident_bytes() - apart, slack = resident / 20 + MIB;
    if (sum > resident + slack || resident > sum + slack)
        dprintf(STDERR_FILENO, "%zu bytes are named, %zu resident; live %zu, slots %zu, spans %zu, pages %zu, large %zu\n", sum,
                resident, now.live, now.idle_slots, now.idle_spans, now.idle_pages, now.idle_large);
    CHECK(sum <= resident + slack && resident <= sum + slack);
    return now;
}

int main(void) {
    small_pages_only();
    memset(block, 0xff, sizeof block);
    memset(block, 0, sizeof block);
    size_t apart = resident_bytes();
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < TOTAL / sizes[kind]; i++)
            memset(block[kind][i] = take(sizes[kind]), 1, sizes[kind]);
    struct slabside_stats full = add_up(apart);
    CHECK(full.live >= KINDS * (size_t)TOTAL * 99 / 100);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < TOTAL / sizes[kind]; i++)
            if (i % KEPT) give(block[kind][i]);
    struct slabside_stats freed = add_up(apart);
    /* A tick may have found holes before. */
    CHECK(freed.idle_slots + freed.holes > TOTAL / 2);
    CHECK(freed.idle_spans > 0 && freed.idle_large > 0);
    malloc_trim(0);
    struct slabside_stats trimmed = add_up(apart);
    CHECK(trimmed.idle_spans == 0 && trimmed.idle_pages == 0 && trimmed.idle_large == 0);
    CHECK(trimmed.holes > TOTAL / 8);
    CHECK(trimmed.live == freed.live);
    sound();
    return 0;
}
