/* attack:     usable size of a local variable
 * default:    abort: invalid usable size of P
 * hardened:   abort: invalid usable size of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    char local[64] __attribute__((aligned(16)));
    fill(local, sizeof local);
    room(local);
    return go_on("it was not found");
}
