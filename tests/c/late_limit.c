/* A program that limits its own address space after it started can still use it: the reserve of the
 * metadata that was never opened goes back. */
#include "tools.h"

#include <sys/resource.h>

int main(void) {
    give(take(100));
    struct rlimit limit = {2048 * (rlim_t)MIB, 2048 * (rlim_t)MIB};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    for (int i = 0; i < 5; i++) {
        char *block = take(100 * MIB);
        CHECK(block != NULL);
        memset(block, 1, MIB);
        give(block);
    }
    static void *object[1 << 16];
    for (int i = 0; i < 1 << 16; i++) CHECK((object[i] = take(1000)) != NULL);
    for (int i = 0; i < 1 << 16; i++) give(object[i]);
    sound();
    return 0;
}
