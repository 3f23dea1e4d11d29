/* `live` and `peak` of the counters stay true over generations of forks, whatever the parents' threads held. */
#include "../tools.h"

#include <pthread.h>
#include <sys/wait.h>

enum { COUNT = 20000, SIZE = 64, GENERATIONS = 6 };
static void *block[COUNT];
static pthread_barrier_t meeting;

/* Slabs of this thread's are full when it has gone, and empty when a child looks at them. */
static void *worker(void *unused) {
    for (int i = 0; i < COUNT; i++) block[i] = slabside_malloc(SIZE);
    for (int i = 0; i < 300; i++) slabside_free(slabside_malloc(3000));
    slabside_free(slabside_malloc(300000));
    pthread_barrier_wait(&meeting);
    pause();
    return unused;
}

int main(void) {
    slabside_free(slabside_malloc(8));
    size_t most = 3 * (size_t)COUNT * SIZE + MIB;
    for (int generation = 0; generation < GENERATIONS; generation++) {
        pthread_t thread;
        CHECK(pthread_barrier_init(&meeting, NULL, 2) == 0);
        CHECK(pthread_create(&thread, NULL, worker, NULL) == 0);
        pthread_barrier_wait(&meeting);
        for (int i = 0; i < COUNT; i++) slabside_free(block[i]);
        CHECK(figures().peak < most);
        pid_t child = generation % 2 ? fork() : _Fork();
        CHECK(child >= 0);
        if (child != 0) {
            int status;
            CHECK(waitpid(child, &status, 0) == child && status == 0);
            return 0;
        }
        for (int i = 0; i < COUNT; i++) block[i] = slabside_malloc(SIZE);
        for (int i = 0; i < COUNT; i++) slabside_free(block[i]);
        slabside_malloc_trim(0);
        CHECK(figures().peak < most && figures().live < MIB);
        sound();
    }
    return 0;
}
