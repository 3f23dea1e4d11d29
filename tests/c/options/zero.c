/* usage: zero free|block - what realloc(block, 0) does. */
#include "../tools.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    bool frees = strcmp(argv[1], "free") == 0;
    size_t sizes[] = {1, 100, 5000, 50000, 500000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t live = figures().live;
        void *block = resize(take(sizes[i]), opaque_size(0));
        CHECK((block == NULL) == frees);
        if (!frees) give(block);
        CHECK(figures().live <= live);
        block = resize(NULL, opaque_size(0)); /* as malloc(0), whatever the option */
        CHECK(block != NULL);
        give(block);
    }
    sound();
    return 0;
}
