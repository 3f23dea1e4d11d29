/* attack:     free of the second page of a large block
 * default:    abort: invalid free of P (byte N of a block of N bytes)
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  table of large blocks */
#include "misuse.h"

int main(void) {
    give((char *)one_of_some(300000) + PAGE_BYTES);
    return go_on("it was not found");
}
