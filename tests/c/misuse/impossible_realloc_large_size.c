/* attack:     realloc of a large block to SIZE_MAX
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(300000);
    CHECK(resize(p, opaque_size(SIZE_MAX)) == NULL && reads_as(p, 0xee, 300000)); /* the block stays */
    return go_on("refused");
}
