/* attack:     a write some bytes past a large block of whole pages, where a canary would not be hit
 * default:    sound: only neighbours' bytes were reached or fault
 * hardened:   fault
 * certainty:  default: harmless to the heap; hardened: always, at once
 * mechanism:  hardened: guard pages, at which blocks of whole pages end */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(1048576);
    fill(p + 1048576 + 2000, 1);
    give(p);
    return go_on("only neighbours' bytes were reached");
}
