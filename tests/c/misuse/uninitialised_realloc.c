/* attack:     read of what realloc added
 * default:    sound: old bytes were read or sound: zeros
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    for (int i = 0; i < SOME; i++) block[i] = memset(take(512), 0xee, 512);
    for (int i = 0; i < SOME; i++) give(block[i]);
    size_t old = 0;
    for (int i = 0; i < SOME; i++) old += !reads_as((char *)resize(memset(take(64), 0, 64), 512) + 64, 0, 448);
    return go_on(old > 0 ? "old bytes were read" : "zeros");
}
