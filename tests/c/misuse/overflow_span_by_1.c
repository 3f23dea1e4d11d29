/* attack:     overflow of a span by 1
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow or fault
 * certainty:  default: harmless to the heap; hardened: always where the byte changes, at free at the latest
 * mechanism:  hardened: guard pages */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(40960);
    change(p + 40960);
    give(p);
    return go_on("only neighbours' bytes were reached");
}
