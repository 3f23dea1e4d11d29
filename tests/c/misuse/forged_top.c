/* attack:     a forged size behind the last block, then a request of nearly everything
 * default:    sound: refused
 * hardened:   sound: refused or abort: overflow
 * certainty:  default: harmless to the heap
 * mechanism:  no size lies behind a block */
#include "misuse.h"

int main(void) {
    size_t *p = one_of_some(1024);
    p[128] = p[129] = SIZE_MAX;
    CHECK(take(SIZE_MAX - 4096) == NULL);
    return go_on("refused");
}
