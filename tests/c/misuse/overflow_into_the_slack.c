/* attack:     write behind the size asked for, within the slot
 * default:    sound: only the block's own slot was reached
 * hardened:   abort: overflow
 * certainty:  default: harmless; hardened: always, at free
 * mechanism:  hardened: canary at the requested size */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(33);
    fill(p + 33, 7);
    give(p);
    return go_on("only the block's own slot was reached");
}
