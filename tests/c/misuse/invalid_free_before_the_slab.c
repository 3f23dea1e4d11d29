/* attack:     free of 16 bytes before the first block
 * default:    abort: invalid free of P or abort: double free of P
 * hardened:   abort: invalid free of P or abort: double free of P
 * certainty:  always
 * mechanism:  page map, reciprocal */
#include "misuse.h"

int main(void) {
    uintptr_t first = UINTPTR_MAX;
    one_of_some(48);
    for (int i = 0; i < SOME; i++) first = (uintptr_t)block[i] < first ? (uintptr_t)block[i] : first;
    give((void *)(first - 16));
    return go_on("it was not found");
}
