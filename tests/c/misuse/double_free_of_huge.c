/* attack:     double free of 100 MiB, unmapped since
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  table of large blocks */
#include "misuse.h"

int main(void) {
    void *p = take(100 * MIB);
    give(p);
    give(p);
    return go_on("it was not found");
}
