/* attack:     a forged block in static memory, then free
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    static size_t forged[64] __attribute__((aligned(64))) = {0, 0x41, 0, 0, 0, 0, 0, 0, 0, 0x41};
    give(forged + 2);
    return go_on("it was not found");
}
