/* attack:     read after free, of a large block kept for reuse
 * default:    sound: the old bytes
 * hardened:   fault
 * certainty:  always
 * mechanism:  hardened: freed large blocks are inaccessible */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(300000);
    give(p);
    return go_on(reads_as(p, 0xee, 300000) ? "the old bytes" : reads_as(p, 0, 300000) ? "zeros" : "something else");
}
