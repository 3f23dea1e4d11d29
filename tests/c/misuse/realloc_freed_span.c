/* attack:     realloc of a freed span
 * default:    abort: after free: realloc of P or abort: invalid realloc of P
 * hardened:   abort: after free: realloc of P or abort: invalid realloc of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(40000);
    give(p);
    resize(p, 60000);
    return go_on("it was not found");
}
