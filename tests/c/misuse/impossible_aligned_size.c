/* attack:     aligned_alloc of SIZE_MAX, and by 2 to the power of 63
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    CHECK(aligned_alloc(opaque_size(64), opaque_size(SIZE_MAX)) == NULL);
    CHECK(aligned_alloc(opaque_size((size_t)1 << 63), opaque_size(64)) == NULL);
    return go_on("refused");
}
