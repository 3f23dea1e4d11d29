/* attack:     double free of an aligned block
 * default:    abort: double free of P (slot N of a 128-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    one_of_some(128);
    void *p = aligned_alloc(64, 100);
    give(p);
    give(p);
    return go_on("it was not found");
}
