/* Sampled blocks of a first-class heap go with it, however many heaps there were. Run with guard-sample:100. */
#include "../tools.h"

/* Whether a block of 64 bytes has a page of its own, between pages that nobody can read: which a write from them says
 * without a fault. */
static bool is_unreadable(char *at) { return write(STDIN_FILENO, at, 1) != 1 && errno == EFAULT; }
static bool is_sampled(char *block) {
    char *end = block + 64;
    return (uintptr_t)end % PAGE_BYTES == 0 && is_unreadable(end) && is_unreadable(end - PAGE_BYTES - 1);
}
static long sampled(slabside_heap *heap, int count) {
    long found = 0;
    for (int i = 0; i < count; i++) {
        char *block = heap == NULL ? slabside_malloc(64) : slabside_heap_malloc(heap, 64);
        CHECK(block != NULL);
        found += is_sampled(block);
        if (heap == NULL) slabside_free(block);
    }
    return found;
}

int main(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0 && dup2(pipes[1], STDIN_FILENO) >= 0);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    slabside_free(slabside_malloc(64));
    long of_heaps = 0;
    for (int i = 0; i < 100; i++) {
        slabside_heap *heap = slabside_heap_create();
        of_heaps += sampled(heap, 1000);
        slabside_heap_destroy(heap);
    }
    CHECK(of_heaps > 500);
    /* There are 256 pages. */
    CHECK(sampled(NULL, 100000) > 500);
    sound();
    return 0;
}
