/* attack:     posix_memalign by less than a pointer, and by no power of two
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    void *p = &p;
    CHECK(posix_memalign(&p, opaque_size(4), 96) == EINVAL && p == &p); /* nothing is written */
    CHECK(posix_memalign(&p, opaque_size(48), 96) == EINVAL && p == &p);
    return go_on("refused");
}
