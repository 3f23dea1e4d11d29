/* attack:     overflow, then realloc
 * default:    sound: only neighbours' bytes were reached
 * hardened:   abort: overflow
 * certainty:  default: harmless to the heap; hardened: always
 * mechanism:  hardened: canary */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(48);
    fill(p + 48, 8);
    CHECK(resize(p, 5000) != NULL);
    return go_on("only neighbours' bytes were reached");
}
