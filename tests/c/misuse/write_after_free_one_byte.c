/* attack:     write after free, of one byte in the middle
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(200);
    give(p);
    fill(p + 100, 1);
    use_again(200);
    return go_on("nothing of the heap lies there");
}
