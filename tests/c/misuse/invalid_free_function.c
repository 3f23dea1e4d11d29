/* attack:     free of a function
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    give((void *)((uintptr_t)free_it & -(uintptr_t)16));
    return go_on("it was not found");
}
