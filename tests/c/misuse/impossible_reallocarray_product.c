/* attack:     reallocarray of a product that overflows
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    errno = 0;
    CHECK(reallocarray(p, opaque_size(SIZE_MAX / 16 + 2), opaque_size(16)) == NULL && errno == ENOMEM);
    CHECK(reads_as(p, 0xee, 48)); /* the block stays */
    return go_on("refused");
}
