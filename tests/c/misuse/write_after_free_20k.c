/* attack:     write after free, of 20,000 bytes
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  hardened: when the pages are used again
 * mechanism:  zero on free, looked at on reuse */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(20000);
    give(p);
    fill(p, 20000);
    use_again(20000);
    return go_on("nothing of the heap lies there");
}
