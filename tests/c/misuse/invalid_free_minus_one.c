/* attack:     free of (void *)-1
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)opaque_size(SIZE_MAX));
    return go_on("it was not found");
}
