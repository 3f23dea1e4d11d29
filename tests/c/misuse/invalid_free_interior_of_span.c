/* attack:     free of the second page of a span
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  reciprocal 1: only offset 0 is exact */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(40000) + PAGE_BYTES);
    return go_on("it was not found");
}
