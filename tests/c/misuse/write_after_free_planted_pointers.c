/* attack:     pointers planted in freed blocks, as against lists of free blocks
 * default:    sound: no planted pointer was followed
 * hardened:   abort: write after free
 * certainty:  harmless always; hardened: found when the slot is used again
 * mechanism:  no link lies in a free slot */
#include "misuse.h"

int main(void) {
    static char target[4096];
    for (int i = 0; i < SOME; i++) block[i] = take(96);
    for (int i = 0; i < SOME; i++) give(block[i]);
    for (int i = 0; i < SOME; i++)
        for (int word = 0; word < 12; word++) ((void **)block[i])[word] = target + 16;
    for (int i = 0; i < 100000; i++) {
        char *p = take(96);
        CHECK(p != NULL && (p < target || p >= target + sizeof target));
    }
    use_again(96);
    return go_on("no planted pointer was followed");
}
