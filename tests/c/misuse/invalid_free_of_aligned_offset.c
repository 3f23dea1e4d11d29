/* attack:     free of p + alignment
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  reciprocal 1: only offset 0 is exact */
#include "misuse.h"

int main(void) {
    char *p = aligned_alloc(4096, 20000);
    give(p + 4096);
    return go_on("it was not found");
}
