/* usage: ten_thousand once|turns - ten thousand threads that allocate, all alive at once or a hundred at a time. */
#include "../tools.h"

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>

enum { COUNT = 10000 };
static pthread_t threads[COUNT];
static sem_t ready, go;
static bool at_once;

static void *run(void *number) {
    unsigned char *small = take(24 + (uintptr_t)number % 100), *span = take(33000);
    CHECK(small != NULL && span != NULL);
    memset(small, 3, 24);
    memset(span, 4, 100);
    if (at_once) {
        sem_post(&ready);
        sem_wait(&go);
    }
    CHECK(all_are(small, 3, 24) && all_are(span, 4, 100));
    give(small);
    give(span);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    at_once = strcmp(argv[1], "once") == 0;
    pthread_attr_t attributes;
    CHECK(sem_init(&ready, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 64 * KIB) == 0);
    int batch = at_once ? COUNT : 100;
    for (int start = 0; start < COUNT; start += batch) {
        int made = 0;
        while (made < batch && pthread_create(&threads[made], &attributes, run, (void *)(intptr_t)made) == 0) made++;
        CHECK(made == batch || (at_once && made >= 1000)); /* a system may allow fewer */
        for (int i = 0; at_once && i < made; i++) sem_wait(&ready);
        for (int i = 0; at_once && i < made; i++) sem_post(&go);
        for (int i = 0; i < made; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        if (made < batch) break;
    }
    sound();
    return 0;
}
