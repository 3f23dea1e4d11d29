/* attack:     a string one byte too long: its end lies behind the block
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow
 * certainty:  default: harmless to the heap; hardened: always, since no canary begins with a zero byte
 * mechanism:  hardened: canary */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(24);
    strcpy(p, "24 letters and not a bit");
    give(p);
    return go_on("only neighbours' bytes were reached");
}
