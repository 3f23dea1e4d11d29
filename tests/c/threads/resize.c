/* Threads resize blocks that others allocated: small, spans and large, growing and shrinking; the bytes
 * that both sizes share must be kept.
 *
 * usage: resize THREADS STEPS */
#include "work.h"

enum { SLOTS = 256, MOST = 1 << 20 };

static slot slots[SLOTS];
static long steps;

static struct block *block_resize(struct block *b, uint32_t size) {
    uint32_t kept = size < b->size ? size : b->size;
    struct block *moved = realloc(b, size);
    CHECK(moved != NULL);
    if (kept < sizeof *moved) kept = sizeof *moved;
    block_verify_prefix(moved, kept);
    block_fill(moved, size, moved->seed + 1);
    return moved;
}

static void *resize_all(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    for (long i = 0; i < steps; i++) {
        slot *place = &slots[random_next(&state) % SLOTS];
        struct block *b = atomic_exchange(place, NULL);
        if (b == NULL) b = block_new(random_size(&state), random_next(&state));
        else if (random_next(&state) % 2 == 0 && b->size < MOST) b = block_resize(b, 8 + b->size + b->size / 4);
        else b = block_resize(b, random_size(&state));
        block_end(atomic_exchange(place, b));
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int count = atoi(argv[1]);
    steps = atol(argv[2]);
    pthread_t threads[64];
    CHECK(count > 0 && count <= 64);
    for (long i = 0; i < count; i++) threads[i] = thread_start(resize_all, (void *)i);
    for (int i = 0; i < count; i++) thread_end(threads[i]);
    slots_end(slots, SLOTS);
    sound();
    return 0;
}
