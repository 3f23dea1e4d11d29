/* attack:     malloc of SIZE_MAX
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    errno = 0;
    CHECK(take(opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    return go_on("refused");
}
