/* attack:     double free of 20,000 bytes, a slot of several pages
 * default:    abort: double free of P (slot N of a 20480-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(20000);
    give(p);
    give(p);
    return go_on("it was not found");
}
