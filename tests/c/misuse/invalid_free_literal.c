/* attack:     free of a string literal
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)opaque_size((uintptr_t)"a literal"));
    return go_on("it was not found");
}
