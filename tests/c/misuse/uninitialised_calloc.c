/* attack:     read of what calloc gave, where other blocks were
 * default:    sound: zeros
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  calloc clears what is not fresh from the kernel */
#include "misuse.h"

int main(void) {
    size_t sizes[] = {8, 96, 1000, 8192, 20000, 100000, 300000, 3 * MIB};
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 8; i++) {
            char *p = calloc(1, sizes[i]);
            CHECK(reads_as(p, 0, sizes[i]));
            give(memset(p, 0xee, sizes[i]));
        }
    return go_on("zeros");
}
