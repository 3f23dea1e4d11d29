/* attack:     free of p + size: the next block
 * default:    sound: the neighbour was freed
 * hardened:   sound: the neighbour was freed or abort: invalid free of P
 * certainty:  never by default: the pointer is a live block's
 * mechanism:  none; hardened slots lie further apart */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(48);
    for (int i = 0; i < SOME; i++) {
        if (block[i] != p + 48) continue;
        give(p + 48);
        return go_on("the neighbour was freed");
    }
    give(p + 48);
    return go_on("it was not found");
}
