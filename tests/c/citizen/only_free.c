/* Threads that only free what another one allocates: all of it comes back, also that of the last hands. */
#include "../tools.h"

#include <pthread.h>

enum { ROUNDS = 40, THREADS = 8, COUNT = 4000 };
static void *blocks[THREADS][COUNT];

static void *give_all(void *list) {
    for (int i = 0; i < COUNT; i++) give(((void **)list)[i]);
    return NULL;
}

int main(void) {
    small_pages_only();
    size_t sizes[] = {8, 40, 100, 700, 3000}, warm = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        for (int t = 0; t < THREADS; t++)
            for (int i = 0; i < COUNT; i++) {
                blocks[t][i] = take(sizes[i % 5]);
                CHECK(blocks[t][i] != NULL);
                *(char *)blocks[t][i] = 1;
            }
        for (int t = 0; t < THREADS; t++) CHECK(pthread_create(&threads[t], NULL, give_all, blocks[t]) == 0);
        for (int t = 0; t < THREADS; t++) CHECK(pthread_join(threads[t], NULL) == 0);
        if (round == 3) warm = resident_bytes();
    }
    CHECK(resident_bytes() <= warm + 4 * MIB);
    sound();
    return 0;
}
