/* attack:     double free of a block from calloc
 * default:    abort: double free of P (slot N of a 96-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    one_of_some(96);
    void *p = calloc(12, 8);
    give(p);
    give(p);
    return go_on("it was not found");
}
