/* attack:     double free of a block of size 0
 * default:    abort: double free of P (slot N of a 8-byte slab)
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(0);
    give(p);
    give(p);
    return go_on("it was not found");
}
