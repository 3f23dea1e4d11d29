/* attack:     a forged header before a page, then free
 * default:    sound: no header is read
 * hardened:   abort: overflow or fault
 * certainty:  default: harmless to the heap
 * mechanism:  no header lies before a block */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(40960);
    for (int i = 1; i <= 16; i++) ((size_t *)p)[-i] = 0xffffffffffffffff;
    for (int i = 0; i < SOME; i++) give(block[i]);
    return go_on("no header is read");
}
