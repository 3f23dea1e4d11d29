/* usage: trim SIZE - fills 4 MiB and frees it from the end: prints by how many KiB the break came down at once. */
#include "../tools.h"

enum { COUNT = 4096 };
static char *blocks[COUNT];

int main(void) {
    for (int i = 0; i < COUNT; i++) blocks[i] = take(1000);
    char *full = break_now();
    for (int i = COUNT; i-- > 2048;) give(blocks[i]);
    printf("%zu\n", (size_t)(full - break_now()) / KIB);
    return 0;
}
