/* Threads that hold two blocks and sleep: what each of them takes, its stack among it.
 *
 * usage: idle_thread MOST [together] - at most MOST bytes; together: all of them come to their first block at once */
#include "../threads/work.h"

enum { THREADS = 200 };

static pthread_barrier_t begin, there;

static void *hold_two(void *argument) {
    if (argument != NULL) pthread_barrier_wait(&begin);
    void *a = memset(take(100), 1, 100), *b = memset(take(500), 1, 500);
    pthread_barrier_wait(&there);
    pthread_barrier_wait(&there);
    give(a), give(b);
    return argument;
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    size_t most = strtoul(argv[1], NULL, 0);
    pthread_t threads[THREADS];
    small_pages_only();
    CHECK(pthread_barrier_init(&begin, NULL, THREADS) == 0);
    CHECK(pthread_barrier_init(&there, NULL, THREADS + 1) == 0);
    give(take(100)), give(take(500));
    size_t before = resident_bytes();
    for (int i = 0; i < THREADS; i++) threads[i] = thread_start(hold_two, argc > 2 ? argv : NULL);
    pthread_barrier_wait(&there);
    size_t each = (resident_bytes() - before) / THREADS;
    if (each > most) dprintf(STDERR_FILENO, "%zu bytes each\n", each);
    CHECK(each <= most);
    pthread_barrier_wait(&there);
    for (int i = 0; i < THREADS; i++) thread_end(threads[i]);
    sound();
    return 0;
}
