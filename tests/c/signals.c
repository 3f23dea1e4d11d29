/* A storm of signals, whose handler does not allocate, over two threads' random work, for a second and until some hundreds
 * were caught. */
#include "exercise.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

static atomic_long caught;
static atomic_bool over;

static void handler(int signal) {
    (void)signal;
    int saved = errno;
    atomic_fetch_add(&caught, 1);
    errno = ENOTTY; /* and put back, as a handler should */
    errno = saved;
}

static void *run(void *seed) {
    static struct exercise table[2];
    struct exercise *work = &table[(uintptr_t)seed % 2];
    work->state = (uintptr_t)seed;
    while (!over) exercise_step(work);
    exercise_end(work);
    return NULL;
}

static void *stop(void *unused) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    wait_ms(1000);
    while (caught <= 500) wait_ms(10);
    over = true;
    return unused;
}

int main(void) {
    struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: system calls are interrupted */
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    pthread_t second, clock;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(pthread_create(&clock, NULL, stop, NULL) == 0);
    CHECK(pthread_create(&second, NULL, run, (void *)7) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    run((void *)4);
    CHECK(pthread_join(second, NULL) == 0);
    CHECK(pthread_join(clock, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    sound();
    return 0;
}
