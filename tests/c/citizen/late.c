/* usage: late LIBRARY FLAG... - a program with threads opens the preload library late, uses it from them, and
 * closes it: there is room for its thread-local block, it works beside libc's malloc, and it stays. */
#include "../tools.h"

#include <dlfcn.h>
#include <pthread.h>

static void *(*their_malloc)(size_t);
static void *(*their_realloc)(void *, size_t);
static void (*their_free)(void *);
static pthread_barrier_t opened;

static void *work(void *unused) {
    static __thread char *blocks[500];
    pthread_barrier_wait(&opened);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 500; i++) {
            size_t size = (size_t)i * i % 30000 + 1;
            blocks[i] = their_malloc(size);
            CHECK(blocks[i] != NULL);
            memset(blocks[i], i, size);
            char *own = malloc(size); /* libc's */
            CHECK(own != NULL && own != blocks[i]);
            free(own);
        }
        for (int i = 0; i < 500; i++) {
            size_t size = (size_t)i * i % 30000 + 1;
            CHECK(all_are(blocks[i], (unsigned char)i, size));
            blocks[i] = their_realloc(blocks[i], 2 * size);
            CHECK(blocks[i] != NULL && all_are(blocks[i], (unsigned char)i, size));
            their_free(blocks[i]);
        }
    }
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int flags = strcmp(argv[2], "deepbind") == 0 ? RTLD_NOW | RTLD_DEEPBIND : RTLD_NOW;
    pthread_t threads[4];
    CHECK(pthread_barrier_init(&opened, NULL, 5) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    for (int round = 0; round < 2; round++) {
        void *library = dlopen(argv[1], flags);
        if (library == NULL) dprintf(STDERR_FILENO, "%s\n", dlerror());
        CHECK(library != NULL);
        *(void **)&their_malloc = dlsym(library, "malloc");
        *(void **)&their_realloc = dlsym(library, "realloc");
        *(void **)&their_free = dlsym(library, "free");
        CHECK(their_malloc != NULL && their_malloc != malloc);
        CHECK(dlclose(library) == 0); /* and yet it stays */
    }
    pthread_barrier_wait(&opened);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    void *again = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
    CHECK(again != NULL && dlsym(again, "malloc") == (void *)their_malloc);
    return 0;
}
