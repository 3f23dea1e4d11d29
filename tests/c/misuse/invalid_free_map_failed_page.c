/* attack:     free of the last page of the address space
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)opaque_size(SIZE_MAX - 4095));
    return go_on("it was not found");
}
