/* attack:     free of p + 4, of a block of 8 bytes
 * default:    abort: invalid free of P (byte N of slot N of a 8-byte slab)
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(8) + 4);
    return go_on("it was not found");
}
