/* Takes 100 MB each in small, medium and large blocks. */
#include "../check.h"

static void take(size_t size) {
    for (size_t taken = 0; taken < 100000000; taken += size) {
        char *block = malloc(size);
        CHECK(block);
        *block = 1;
    }
}

int main(void) {
    take(2000);
    take(20000);
    take(1000000);
    return 0;
}
