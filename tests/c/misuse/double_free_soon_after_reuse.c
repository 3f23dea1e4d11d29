/* attack:     double free, a few allocations after the first
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  default: while the slot is free, or handed out and freed; hardened: while it is in quarantine
 * mechanism:  bitmap exact at every moment; hardened: quarantine */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    give(p);
    for (int i = 0; i < 300; i++) give(take(48));
    give(p);
    return go_on("it was not found");
}
