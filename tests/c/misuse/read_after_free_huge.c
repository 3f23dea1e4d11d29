/* attack:     read after free, of 100 MiB
 * default:    fault
 * hardened:   fault
 * certainty:  always
 * mechanism:  unmapped */
#include "misuse.h"

int main(void) {
    char *p = memset(take(100 * MIB), 0xee, 100);
    give(p);
    return go_on(reads_as(p, 0xee, 100) ? "the old bytes" : "something else");
}
