/* attack:     free of what lies behind the last slot of a slab
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  bits past the last slot read free */
#include "misuse.h"

int main(void) {
    char *p = take(48);
    give((char *)((uintptr_t)p & -(uintptr_t)PAGE_BYTES) + PAGE_BYTES / 48 * 48);
    return go_on("it was not found");
}
