/* attack:     a write past a span's canary, in its last page
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow of P (byte N of slot N of a 20480-byte slab), 20000 bytes long
 * certainty:  default: harmless to the heap; hardened: always, at free
 * mechanism:  hardened: what lies after a canary is zero */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(20000);
    fill(p + 20300, 1);
    give(p);
    return go_on("only neighbours' bytes were reached");
}
