/* Two threads free the same blocks at once, over and over, while the owner allocates: under misuse:report one
 * free of each pair counts, whenever the other is found, and no block is ever handed out twice. */
#include "../tools.h"

#include <pthread.h>

enum { ROUNDS = 300, COUNT = 200 };

static void *volatile blocks[COUNT];
static pthread_barrier_t begin, end;

static void *give_all(void *unused) {
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&begin);
        for (int i = 0; i < COUNT; i++) give(blocks[i]);
        pthread_barrier_wait(&end);
    }
    return unused;
}

int main(void) {
    pthread_t threads[2];
    pthread_barrier_init(&begin, NULL, 3);
    pthread_barrier_init(&end, NULL, 3);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, give_all, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        static void *sorted[COUNT];
        for (int i = 0; i < COUNT; i++) CHECK((blocks[i] = sorted[i] = take(48)) != NULL);
        sort_addresses(sorted, COUNT);
        for (int i = 1; i < COUNT; i++) CHECK(sorted[i] != sorted[i - 1]);
        pthread_barrier_wait(&begin);
        pthread_barrier_wait(&end);
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    sound();
    puts("went on");
    return 0;
}
