/* attack:     free of an address beyond the break
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    one_of_some(48);
    give((void *)(((uintptr_t)break_now() + 64 * PAGE_BYTES) & -(uintptr_t)PAGE_BYTES));
    return go_on("it was not found");
}
