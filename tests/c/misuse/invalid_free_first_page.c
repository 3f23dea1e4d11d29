/* attack:     free of address 4096
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)opaque_size(4096));
    return go_on("it was not found");
}
