/* attack:     write after free, of a large block kept for reuse
 * default:    sound: nothing of the heap lies there
 * hardened:   fault
 * certainty:  hardened: while the block is kept
 * mechanism:  freed large blocks are inaccessible */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(300000);
    give(p);
    fill(p, 300000);
    return go_on("nothing of the heap lies there");
}
