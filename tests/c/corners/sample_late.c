/* Sampling that is switched on late samples one in so many from then on, in threads old and new. */
#include "../tools.h"

#include <pthread.h>

enum { HELD = 4096 };

/* Whether a block of 64 bytes has a page of its own, between pages that nobody can read: which a write from them says
 * without a fault. */
static bool is_unreadable(char *at) { return write(STDIN_FILENO, at, 1) != 1 && errno == EFAULT; }
static bool is_sampled(char *block) {
    char *end = block + 64;
    return (uintptr_t)end % PAGE_BYTES == 0 && is_unreadable(end) && is_unreadable(end - PAGE_BYTES - 1);
}

static long pairs(void **held, long count) {
    long found = 0;
    for (long i = 0; i < count; i++) {
        void **at = &held[i % HELD];
        slabside_free(*at);
        *at = slabside_malloc(64);
        found += is_sampled(*at);
    }
    return found;
}

static pthread_barrier_t meeting;
static void *work(void *unused) {
    void **held = slabside_calloc(HELD, sizeof *held);
    CHECK(pairs(held, 3000000) == 0);
    pthread_barrier_wait(&meeting);
    pthread_barrier_wait(&meeting);
    long found = pairs(held, 200000); /* 200 are due */
    CHECK(found > 60 && found < 500);
    return unused;
}

int main(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0 && dup2(pipes[1], STDIN_FILENO) >= 0);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    pthread_t thread;
    CHECK(pthread_barrier_init(&meeting, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_barrier_wait(&meeting);
    CHECK(slabside_option_set("guard-sample", "1000") == 0);
    pthread_barrier_wait(&meeting);
    pthread_join(thread, NULL);
    sound();
    return 0;
}
