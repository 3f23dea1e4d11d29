/* A library to be loaded while the program runs: it allocates as it comes and frees as it goes. */
#include "tools.h"

enum { COUNT = 200 };
static unsigned char *block[COUNT];

__attribute__((constructor)) static void come(void) {
    for (size_t i = 0; i < COUNT; i++) {
        block[i] = i % 2 ? calloc(1, i * i) : take(i * i);
        CHECK(block[i] != NULL);
        memset(block[i], (int)i, i * i);
    }
}

__attribute__((destructor)) static void go(void) {
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(all_are(block[i], (unsigned char)i, i * i));
        give(block[i]);
    }
}

/* Some more work; returns what only this library knows. */
int plugin_work(void) {
    for (size_t i = 0; i < 10000; i++) give(take(i));
    sound();
    return 42;
}

/* A block that outlives the library's stay in the program. */
char *plugin_keep(size_t size) {
    char *kept = take(size);
    CHECK(kept != NULL);
    memset(kept, 9, size);
    return kept;
}
