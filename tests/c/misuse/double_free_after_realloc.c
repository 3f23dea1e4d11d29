/* attack:     free of what realloc moved away from
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    CHECK(resize(p, 5000) != p);
    give(p);
    return go_on("it was not found");
}
