/* attack:     write to a block of size 0
 * default:    sound: only the block's own slot was reached
 * hardened:   fault or abort: overflow
 * certainty:  default: harmless; hardened: always
 * mechanism:  hardened: unreadable page */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(0);
    fill(p, 1);
    give(p);
    return go_on("only the block's own slot was reached");
}
