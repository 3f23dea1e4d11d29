/* attack:     realloc of a freed block to less
 * default:    abort: after free: realloc of P (slot N of a 48-byte slab)
 * hardened:   abort: after free: realloc of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    give(p);
    resize(p, 1);
    return go_on("it was not found");
}
