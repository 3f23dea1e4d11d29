/* Parent and child choose different slots at random, after fork and after _Fork, with one thread and with two, of the
 * thread's own heap and of a first-class one. */
#include "../tools.h"

#include <pthread.h>
#include <sys/wait.h>

enum { COUNT = 200 };
static slabside_heap *heap;

static void *rest(void *unused) {
    slabside_free(slabside_malloc(100));
    pause();
    return unused;
}

static void choose(void **to, int of_heap) {
    for (int i = 0; i < COUNT; i++) to[i] = of_heap ? slabside_heap_malloc(heap, 64) : slabside_malloc(64);
}

static void differ(pid_t (*split)(void), int of_heap) {
    void *here[COUNT], *there[COUNT];
    int pipes[2], status;
    CHECK(pipe(pipes) == 0);
    pid_t child = split();
    CHECK(child >= 0);
    if (child == 0) {
        choose(there, of_heap);
        CHECK(write(pipes[1], there, sizeof there) == sizeof there);
        _exit(0);
    }
    CHECK(read(pipes[0], there, sizeof there) == sizeof there);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    choose(here, of_heap);
    int same = 0;
    for (int i = 0; i < COUNT; i++) same += here[i] == there[i];
    /* By chance one in some 30 at the most: words of 64 slots are used up together. */
    CHECK(same < COUNT / 4);
    close(pipes[0]);
    close(pipes[1]);
}

int main(void) {
    for (int i = 0; i < 100; i++) CHECK(slabside_malloc(100) != NULL);
    differ(_Fork, 0);
    differ(fork, 0);
    heap = slabside_heap_create();
    void *some[COUNT];
    choose(some, 1);
    differ(_Fork, 1);
    differ(fork, 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, rest, NULL) == 0);
    for (int of_heap = 0; of_heap < 2; of_heap++) {
        differ(_Fork, of_heap);
        differ(fork, of_heap);
    }
    return 0;
}
