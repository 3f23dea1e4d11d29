/* attack:     free of what alloca gave
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

#include <alloca.h>

int main(void) {
    void *p = alloca(opaque_size(100));
    fill(p, 100);
    give(p);
    return go_on("it was not found");
}
