/* attack:     free of an address of the kernel
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)opaque_size(0xffffffff81000000));
    return go_on("it was not found");
}
