/* attack:     realloc of a local variable
 * default:    abort: invalid realloc of P
 * hardened:   abort: invalid realloc of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    char local[64] __attribute__((aligned(16)));
    fill(local, sizeof local);
    resize(local, 100);
    return go_on("it was not found");
}
