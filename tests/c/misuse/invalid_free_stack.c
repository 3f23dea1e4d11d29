/* attack:     free of a local variable
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    char local[64] __attribute__((aligned(16)));
    fill(local, sizeof local);
    give(local);
    return go_on("it was not found");
}
