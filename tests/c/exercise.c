/* Random work by one thread, then by two beside each other, for every way to start a program.
 *
 * With REFUSE_AFTER=N the program brings an sbrk of its own that moves the break N times and then fails
 * for good. */
#include "exercise.h"

#include <pthread.h>

#ifdef REFUSE_AFTER
extern void *__sbrk(intptr_t);
static int moved;
void *sbrk(intptr_t delta) {
    if (delta != 0 && moved++ >= REFUSE_AFTER) {
        errno = ENOMEM;
        return (void *)-1;
    }
    if (delta == 0 && REFUSE_AFTER == 0) {
        errno = ENOMEM;
        return (void *)-1;
    }
    return __sbrk(delta);
}
#endif

static void *run(void *seed) {
    static struct exercise table[2];
    struct exercise *work = &table[(uintptr_t)seed % 2];
    work->state = (uintptr_t)seed;
    for (int i = 0; i < 60000; i++) exercise_step(work);
    exercise_end(work);
    return NULL;
}

int main(void) {
    pthread_t second;
    run((void *)5); /* while there is one thread, the prefixed library moves the break */
    CHECK(pthread_create(&second, NULL, run, (void *)7) == 0);
    run((void *)4);
    CHECK(pthread_join(second, NULL) == 0);
#ifdef REFUSE_AFTER
    CHECK(moved >= REFUSE_AFTER); /* else the library did not ask this program's sbrk */
#endif
    sound();
    dprintf(STDOUT_FILENO, "done\n");
    return 0;
}
