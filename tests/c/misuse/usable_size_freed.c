/* attack:     usable size of a freed block
 * default:    abort: after free: usable size of P (slot N of a 48-byte slab)
 * hardened:   abort: after free: usable size of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    give(p);
    room(p);
    return go_on("it was not found");
}
