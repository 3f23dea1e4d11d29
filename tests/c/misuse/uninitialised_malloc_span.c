/* attack:     read of a fresh span, where another was
 * default:    sound: old bytes were read
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    give(memset(take(40000), 0xee, 40000));
    return go_on(reads_as(take(40000), 0, 40000) ? "zeros" : "old bytes were read");
}
