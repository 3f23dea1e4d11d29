/* attack:     malloc of a length that a subtraction made negative
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    size_t length = opaque_size(3);
    errno = 0;
    CHECK(take(length - 4) == NULL && errno == ENOMEM);
    return go_on("refused");
}
