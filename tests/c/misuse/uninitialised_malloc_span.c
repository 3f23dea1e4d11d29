/* attack:     read of a fresh span, where another was
 * default:    sound: old bytes were read
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    give(memset(take(20000), 0xee, 20000));
    return go_on(reads_as(take(20000), 0, 20000) ? "zeros" : "old bytes were read");
}
