/* attack:     double free of a span
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(40000);
    give(p);
    give(p);
    return go_on("it was not found");
}
