/* usage: dlopen LIBRARY [keep] - loads and unloads a library that allocates in its constructor, by two
 * threads at once; with "keep" loads it once. */
#include "tools.h"

#include <dlfcn.h>
#include <pthread.h>

static const char *path;

static void load(int flags) {
    void *library = dlopen(path, RTLD_NOW | flags);
    if (library == NULL) dprintf(STDERR_FILENO, "%s\n", dlerror());
    CHECK(library != NULL);
    int (*work)(void) = (int (*)(void))dlsym(library, "plugin_work");
    CHECK(work != NULL);
    if (flags != 0) CHECK(work() == 42);
    CHECK(dlclose(library) == 0);
}

static void *load_often(void *unused) {
    for (int i = 0; i < 50; i++) {
        load(0);
        give(take(100));
    }
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    path = argv[1];
    if (argc > 2) {
        load(RTLD_NODELETE);
        return 0;
    }
    pthread_t second;
    CHECK(pthread_create(&second, NULL, load_often, NULL) == 0);
    load_often(NULL);
    CHECK(pthread_join(second, NULL) == 0);
    sound();
    return 0;
}
