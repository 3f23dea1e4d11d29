/* attack:     read of what lies behind the size asked of calloc, within the slot
 * default:    sound: old bytes were read or sound: zeros
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free, exact usable size */
#include "misuse.h"

int main(void) {
    for (int i = 0; i < SOME; i++) block[i] = memset(take(48), 0xee, 48);
    for (int i = 0; i < SOME; i++) give(block[i]);
    size_t old = 0;
    for (int i = 0; i < 200; i++) {
        char *p = calloc(1, 33);
        old += !reads_as(p + 33, 0, room(p) - 33);
    }
    return go_on(old > 0 ? "old bytes were read" : "zeros");
}
