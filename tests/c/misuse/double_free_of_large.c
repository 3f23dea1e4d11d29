/* attack:     double free of a large block
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  table of large blocks */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(300000);
    give(p);
    give(p);
    return go_on("it was not found");
}
