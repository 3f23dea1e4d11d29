/* Blocks of a thread that has exited are freed twice, which is told of: their slots are used again all the
 * same. Prints how many are. */
#include "../tools.h"

#include <pthread.h>

enum { COUNT = 64, SIZE = 2000 };
static void *block[COUNT];

static void *take_and_free(void *unused) {
    for (int i = 0; i < COUNT; i++) block[i] = take(SIZE);
    for (int i = 0; i < COUNT; i += 2) give(block[i]);
    return unused;
}

int main(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, take_and_free, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < COUNT; i += 2) give(block[i]);
    int used = 0;
    for (int n = 0; n < 1000; n++) {
        void *fresh = take(SIZE);
        for (int i = 0; i < COUNT; i += 2) used += fresh == block[i];
    }
    sound();
    printf("%d\n", used);
    return 0;
}
