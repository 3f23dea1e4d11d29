/* attack:     free of p + 16
 * default:    abort: invalid free of P (byte N of slot N of a 48-byte slab)
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(48) + 16);
    return go_on("it was not found");
}
