/* A first-class heap's large blocks while threads free others, of which a guard closes the addresses. */
#include "../tools.h"

#include <pthread.h>

static volatile int stop;
static void *plain(void *unused) {
    while (!stop) {
        char *block = slabside_malloc(300000);
        CHECK(block != NULL);
        block[0] = block[299999] = 1;
        slabside_free(block);
    }
    return unused;
}

int main(void) {
    slabside_heap *heap = slabside_heap_create();
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, plain, NULL) == 0);
    for (int i = 0; i < 4000; i++) {
        char *block = slabside_heap_malloc(heap, 200000);
        CHECK(block != NULL);
        for (size_t k = 0; k < 200000; k += 4000) block[k] = 7;
        for (size_t k = 0; k < 200000; k += 4000) CHECK(block[k] == 7);
        if (i % 3 != 0) slabside_free(block);
        if (i % 100 == 99) {
            slabside_heap_destroy(heap);
            heap = slabside_heap_create();
        }
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    slabside_heap_destroy(heap);
    sound();
    return 0;
}
