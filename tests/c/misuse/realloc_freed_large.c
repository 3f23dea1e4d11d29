/* attack:     realloc of a freed large block
 * default:    abort: after free: realloc of P or abort: invalid realloc of P
 * hardened:   abort: after free: realloc of P or abort: invalid realloc of P
 * certainty:  always
 * mechanism:  table of large blocks */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(300000);
    give(p);
    resize(p, 400000);
    return go_on("it was not found");
}
