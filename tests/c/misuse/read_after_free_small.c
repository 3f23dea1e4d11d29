/* attack:     read after free, of 48 bytes
 * default:    sound: the old bytes
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(48);
    give(p);
    return go_on(reads_as(p, 0xee, 48) ? "the old bytes" : reads_as(p, 0, 48) ? "zeros" : "something else");
}
