/* attack:     write after free, of 8 bytes
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(8);
    give(p);
    fill(p, 8);
    use_again(8);
    return go_on("nothing of the heap lies there");
}
