/* What a fork child may take is what its limit leaves, however many forks there were. Run with limit-hard:64m. */
#include "../tools.h"

#include <pthread.h>
#include <sys/wait.h>

static volatile int stop;
static void *grow(void *unused) {
    while (!stop) {
        char *block = malloc(200000);
        for (size_t size = 400000; block != NULL && size < 4000000; size *= 2) {
            char *more = realloc(block, size);
            if (more == NULL) break;
            block = more;
        }
        free(block);
    }
    return unused;
}

/* The most that can be had, in blocks of half a mebibyte. */
static size_t most(void) {
    static void *block[1000];
    size_t count = 0;
    while (count < 1000 && (block[count] = malloc(MIB / 2)) != NULL) count++;
    for (size_t i = 0; i < count; i++) free(block[i]);
    return count / 2;
}

int main(void) {
    free(malloc(8));
    CHECK(most() >= 50 && most() <= 64);
    for (int generation = 0; generation < 8; generation++) {
        pthread_t thread[2];
        stop = 0;
        for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, grow, NULL) == 0);
        wait_ms(5);
        pid_t child = generation % 2 ? fork() : _Fork();
        CHECK(child >= 0);
        if (child != 0) {
            stop = 1;
            for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
            int status;
            CHECK(waitpid(child, &status, 0) == child && status == 0);
            return 0;
        }
        /* What the parent's threads held is live for good: at most 4 MB each. */
        malloc_trim(0);
        size_t now = most();
        if (generation < 4) CHECK(now + 10 * ((size_t)generation + 1) >= 50);
        CHECK(now <= 64);
        sound();
    }
    return 0;
}
