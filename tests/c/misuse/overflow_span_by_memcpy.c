/* attack:     overflow of a span by memcpy of 4 KiB
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow or fault
 * certainty:  default: harmless to the heap; hardened: always, at free at the latest
 * mechanism:  hardened: guard pages */
#include "misuse.h"

int main(void) {
    static const char source[4096] = "a message";
    char *p = one_of_some(40960);
    copy(p + 40960, source, sizeof source);
    for (int i = 0; i < SOME; i++) give(block[i]);
    return go_on("only neighbours' bytes were reached");
}
