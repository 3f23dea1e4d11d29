/* attack:     write after free, by memcpy of the whole block
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(1000), *q = one_of_some(1000);
    give(p);
    copy(p, q, 1000);
    use_again(1000);
    return go_on("nothing of the heap lies there");
}
