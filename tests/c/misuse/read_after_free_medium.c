/* attack:     read after free, of 8 KiB
 * default:    sound: the old bytes
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(8192);
    give(p);
    return go_on(reads_as(p, 0xee, 8192) ? "the old bytes" : reads_as(p, 0, 8192) ? "zeros" : "something else");
}
