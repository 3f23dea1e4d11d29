/* attack:     read after free, of a span
 * default:    sound: the old bytes
 * hardened:   sound: zeros or fault
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(40000);
    give(p);
    return go_on(reads_as(p, 0xee, 40000) ? "the old bytes" : reads_as(p, 0, 40000) ? "zeros" : "something else");
}
