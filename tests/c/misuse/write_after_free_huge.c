/* attack:     write after free, of 100 MiB
 * default:    fault
 * hardened:   fault
 * certainty:  always, until the addresses are mapped again
 * mechanism:  unmapped */
#include "misuse.h"

int main(void) {
    char *p = take(100 * MIB);
    give(p);
    fill(p, 100);
    return go_on("nothing of the heap lies there");
}
