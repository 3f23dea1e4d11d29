/* attack:     write after free, of the last byte
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(208);
    give(p);
    fill(p + 207, 1);
    use_again(208);
    return go_on("nothing of the heap lies there");
}
