/* A fork may come in the middle of another thread's call of a first-class heap. The child goes on with the heap and ends
 * it: what that call left half done is nobody's mistake.
 *
 * usage: heap_cut_off FORKS */
#include "../threads/work.h"

#include <sys/wait.h>

enum { THREADS = 3, HELD = 200 };

static slabside_heap *heap;
static atomic_bool over;

static void *busy(void *number) {
    void *held[HELD] = {0};
    uint64_t random = 77 + (uintptr_t)number;
    for (size_t i = 0; !atomic_load(&over); i = (i + 1) % HELD) {
        size_t size = 1 + random_next(&random) % 3000;
        free(held[i]);
        held[i] = slabside_heap_malloc(heap, size);
        CHECK(held[i] != NULL);
        memset(held[i], 1, size);
        if (i % 3 == 0) held[i] = slabside_heap_realloc(heap, held[i], 1 + random_next(&random) % 6000);
        CHECK(held[i] != NULL);
    }
    return number;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    heap = slabside_heap_create();
    CHECK(heap != NULL);
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++) thread[i] = thread_start(busy, (void *)i);
    for (int forks = atoi(argv[1]); forks > 0; forks--) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            for (size_t size = 1; size < 5000; size += 97) CHECK(slabside_heap_malloc(heap, size) != NULL);
            slabside_heap_destroy(heap);
            slabside_heap *other = slabside_heap_create();
            CHECK(other != NULL && slabside_heap_malloc(other, 100) != NULL);
            slabside_heap_destroy(other);
            sound();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < THREADS; i++) thread_end(thread[i]);
    slabside_heap_destroy(heap);
    sound();
    return 0;
}
