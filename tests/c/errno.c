/* free leaves errno alone, also where it must ask the kernel. */
#include "tools.h"

int main(void) {
    static const size_t sizes[] = {0, 8, 100, 8000, 20000, 130000, 200000, 5 * MIB, 64 * MIB};
    static void *object[30000];
    for (int i = 0; i < 9; i++) {
        for (int j = 0; j < 20; j++) object[j] = take(sizes[i]);
        for (int j = 0; j < 20; j++) {
            errno = 4242;
            give(object[j]);
            CHECK(errno == 4242);
        }
    }
    for (int i = 0; i < 30000; i++) object[i] = take(1000);
    errno = 4242;
    for (int i = 0; i < 30000; i++) give(object[i]); /* moves the break */
    give(NULL);
    CHECK(errno == 4242);
    return 0;
}
