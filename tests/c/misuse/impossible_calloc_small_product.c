/* attack:     calloc of a product that overflows to 16
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    CHECK(calloc(opaque_size((size_t)1 << 60), opaque_size((1 << 4) + 0)) == NULL);
    return go_on("refused");
}
