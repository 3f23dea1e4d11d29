/* attack:     realloc of what realloc moved away from
 * default:    abort: after free: realloc of P (slot N of a 48-byte slab)
 * hardened:   abort: after free: realloc of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    CHECK(resize(p, 5000) != p);
    resize(p, 6000);
    return go_on("it was not found");
}
