/* attack:     realloc to SIZE_MAX
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    errno = 0;
    CHECK(resize(p, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    CHECK(reads_as(p, 0xee, 48)); /* the block stays */
    return go_on("refused");
}
