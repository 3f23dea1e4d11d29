/* attack:     read after free, of a span
 * default:    sound: the old bytes
 * hardened:   sound: zeros or fault
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(20000);
    give(p);
    return go_on(reads_as(p, 0xee, 20000) ? "the old bytes" : reads_as(p, 0, 20000) ? "zeros" : "something else");
}
