/* Makes the library do all that it asks the system for: break, mappings, threads, a fork, an end. */
#include "../exercise.h"

#include <pthread.h>
#include <sys/wait.h>

static void *run(void *seed) {
    struct exercise *work = take(sizeof *work);
    CHECK(work != NULL);
    memset(work, 0, sizeof *work);
    work->state = (uintptr_t)seed;
    for (int i = 0; i < 3000; i++) exercise_step(work);
    exercise_end(work);
    give(work);
    return NULL;
}

int main(void) {
    pthread_t threads[2];
    void *large = NULL;
    run((void *)1);
    for (size_t size = 1 << 18; size <= 1 << 24; size *= 4) CHECK((large = resize(large, size)) != NULL);
    large = resize(large, 1 << 18);
    give(large);
    for (uintptr_t i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, run, (void *)(i + 2)) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run((void *)9);
        _exit(7);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    puts("done");
    return 0;
}
