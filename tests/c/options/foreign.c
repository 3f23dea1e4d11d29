/* usage: foreign free|realloc|usable - an address within a large block is no foreign one, whatever the option says.
 *        foreign forward|ignore - blocks of libc's own malloc, which a program gets as a library opened by
 * RTLD_DEEPBIND would, are given to the functions of the preloaded one. */
#include "../tools.h"

#include <dlfcn.h>

typedef void *(*take_t)(size_t);

static int misuse(const char *call) {
    char *inside = (char *)take(3000000) + 4096;
    if (strcmp(call, "free") == 0)
        give(inside);
    else if (strcmp(call, "realloc") == 0)
        resize(inside, 100);
    else
        room(inside);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "forward") != 0 && strcmp(argv[1], "ignore") != 0)
        return misuse(argv[1]);
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    CHECK(libc != NULL);
    take_t take_foreign = (take_t)dlsym(libc, "malloc");
    CHECK(take_foreign != NULL && take_foreign != (take_t)dlsym(RTLD_DEFAULT, "malloc"));
    bool forward = strcmp(argv[1], "forward") == 0;
    for (size_t size = 1; size < 1000000; size = size * 3 + 1) {
        char *block = take_foreign(size);
        CHECK(block != NULL);
        memset(block, 5, size);
        if (!forward) {
            CHECK(room(block) == 0);
            errno = 0;
            CHECK(resize(block, size + 1) == NULL && errno == EINVAL);
            CHECK(all_are(block, 5, size));
        } else {
            CHECK(room(block) >= size);
            block = resize(block, 2 * size);
            CHECK(block != NULL && all_are(block, 5, size));
        }
        give(block);
    }
    if (forward) { /* what libc keeps of freed blocks shows that it got them back */
        struct mallinfo2 (*info)(void) = (struct mallinfo2(*)(void))dlsym(libc, "mallinfo2");
        size_t used = info().uordblks;
        void *block = take_foreign(100000);
        CHECK(info().uordblks >= used + 100000);
        give(block);
        CHECK(info().uordblks <= used + 1000);
    }
    void *own = take(100);
    CHECK(own != NULL);
    give(own);
    sound();
    return 0;
}
