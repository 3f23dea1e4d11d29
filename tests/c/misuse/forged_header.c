/* attack:     a forged header of another malloc before the block, then free
 * default:    sound: no header is read
 * hardened:   abort: overflow or abort: write after free
 * certainty:  default: harmless to the heap; hardened: when the block below is freed
 * mechanism:  no header lies before a block */
#include "misuse.h"

int main(void) {
    size_t *p = one_of_some(128);
    p[-2] = 0;
    p[-1] = 0x421; /* 1,056 bytes, the one before in use */
    for (int i = 0; i < SOME; i++) give(block[i]);
    return go_on("no header is read");
}
