/* attack:     read of fresh bytes from malloc, where another block was
 * default:    sound: old bytes were read
 * hardened:   sound: zeros
 * certainty:  always
 * mechanism:  hardened: zero on free */
#include "misuse.h"

int main(void) {
    size_t old = 0;
    for (int i = 0; i < 5000; i++) block[i % SOME] = memset(take(96), 0xee, 96), give(block[i % SOME]);
    for (int i = 0; i < 5000; i++) old += !reads_as(take(96), 0, 96);
    return go_on(old > 0 ? "old bytes were read" : "zeros");
}
