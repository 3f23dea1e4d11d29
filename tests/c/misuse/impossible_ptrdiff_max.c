/* attack:     malloc of PTRDIFF_MAX + 1
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    errno = 0;
    CHECK(take(opaque_size((size_t)PTRDIFF_MAX + 1)) == NULL && errno == ENOMEM);
    return go_on("refused");
}
