/* attack:     write after free, of a span
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free or fault
 * certainty:  hardened: when the slot is used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(40000);
    give(p);
    fill(p, 40000);
    use_again(40000);
    return go_on("nothing of the heap lies there");
}
