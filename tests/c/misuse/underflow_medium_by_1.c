/* attack:     underflow of 8 KiB by 1
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow or abort: write after free or fault
 * certainty:  default: harmless to the heap; hardened: when the block below is freed, or used again
 * mechanism:  hardened: canary */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(8192);
    fill(p - 1, 1);
    for (int i = 0; i < SOME; i++) give(block[i]);
    use_again(8192);
    return go_on("only neighbours' bytes were reached");
}
