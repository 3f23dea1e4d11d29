/* attack:     overflow of a large block by 8
 * default:    sound: only neighbours' bytes were reached or fault
 * hardened:   abort: overflow or fault
 * certainty:  default: harmless to the heap; hardened: always, at free at the latest
 * mechanism:  hardened: guard pages */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(1048576);
    fill(p + 1048576, 8);
    give(p);
    return go_on("only neighbours' bytes were reached");
}
