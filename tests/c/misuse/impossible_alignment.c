/* attack:     aligned_alloc by no power of two
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    errno = 0;
    CHECK(aligned_alloc(opaque_size(48), 96) == NULL && errno == EINVAL);
    return go_on("refused");
}
