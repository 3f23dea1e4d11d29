/* attack:     underflow of a span by 1
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow or abort: write after free or fault
 * certainty:  default: harmless to the heap; hardened: always
 * mechanism:  hardened: guard pages */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(40960);
    fill(p - 1, 1);
    for (int i = 0; i < SOME; i++) give(block[i]);
    use_again(40960);
    return go_on("only neighbours' bytes were reached");
}
