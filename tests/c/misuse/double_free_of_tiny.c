/* attack:     double free of 8 bytes
 * default:    abort: double free of P (slot N of a 8-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(8);
    give(p);
    give(p);
    return go_on("it was not found");
}
