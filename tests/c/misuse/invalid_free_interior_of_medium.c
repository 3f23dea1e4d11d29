/* attack:     free of the middle of 8 KiB
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(8192) + 4096);
    return go_on("it was not found");
}
