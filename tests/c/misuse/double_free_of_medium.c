/* attack:     double free of 8 KiB
 * default:    abort: double free of P (slot N of a 8192-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(8192);
    give(p);
    give(p);
    return go_on("it was not found");
}
