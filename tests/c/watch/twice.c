/* Frees a block twice. */
#include "../tools.h"

__attribute__((noipa)) void free_twice(void *block) {
    give(block);
    give(block);
    CHECK(block);
}

int main(void) {
    free_twice(take(100));
    return 0;
}
