/* usage: misuse - under misuse:report every misuse is dropped: the heap stays sound, and goes on. */
#include "../tools.h"

#include <pthread.h>

static void *give_twice(void *block) {
    give(block);
    give(block);
    return NULL;
}

static void expect_failed_resize(void *block) {
    errno = 0;
    CHECK(resize(block, 100) == NULL && errno == EINVAL);
    CHECK(room(block) == 0);
}

/* Block and misuse for small slots, spans and large mappings. */
static void each_size(size_t size) {
    char *block = take(size), *other = take(size);
    memset(other, 7, size);
    give(block + 8);               /* inside */
    CHECK(room(block) >= size);    /* still live */
    give(block);
    give(block);                   /* twice */
    if (size < 100000) expect_failed_resize(block);
    CHECK(all_are(other, 7, size));
    give(other);
    char *again[3];
    for (int i = 0; i < 3; i++) {
        again[i] = take(size);
        CHECK(again[i] != NULL);
        for (int j = 0; j < i; j++) CHECK(again[i] != again[j]);
        memset(again[i], i, size);
    }
    for (int i = 0; i < 3; i++) give(again[i]);
    sound();
}

int main(void) {
    static char own[64];
    size_t sizes[] = {8, 48, 1000, 5000, 40000, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) each_size(sizes[i]);
    give(own);
    expect_failed_resize(own);
    /* Another thread's block, freed twice there and once more by its owner. */
    void *block = take(48);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, give_twice, block) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    give(block);
    static void *blocks[1000];
    for (int i = 0; i < 1000; i++) CHECK((blocks[i] = take(48)) != NULL);
    sort_addresses(blocks, 1000);
    for (int i = 1; i < 1000; i++) CHECK(blocks[i] != blocks[i - 1]);
    for (int i = 0; i < 1000; i++) give(blocks[i]);
    sound();
    puts("went on");
    return 0;
}
