/* attack:     overflow of 20,000 bytes by 1
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow
 * certainty:  default: harmless to the heap; hardened: always where the byte changes, at free at the latest
 * mechanism:  hardened: canary */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(20000);
    change(p + 20000);
    give(p);
    return go_on("only neighbours' bytes were reached");
}
