/* attack:     double free of 20,000 bytes whose whole slab was freed
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(20000);
    for (int i = 0; i < SOME; i++) give(block[i]);
    give(p);
    return go_on("it was not found");
}
