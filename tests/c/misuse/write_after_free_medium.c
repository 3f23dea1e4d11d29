/* attack:     write after free, of 8 KiB
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(8192);
    give(p);
    fill(p, 8192);
    use_again(8192);
    return go_on("nothing of the heap lies there");
}
