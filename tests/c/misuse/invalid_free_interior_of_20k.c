/* attack:     free of the second page of a slot of 20,000 bytes
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(20000) + PAGE_BYTES);
    return go_on("it was not found");
}
