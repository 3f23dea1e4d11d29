/* attack:     calloc of a product that overflows
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    errno = 0;
    CHECK(calloc(opaque_size(SIZE_MAX / 16 + 2), opaque_size(16)) == NULL && errno == ENOMEM);
    return go_on("refused");
}
