/* attack:     free of a thread-local variable
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

static _Thread_local char local[64] __attribute__((aligned(16)));

int main(void) {
    give(local);
    return go_on("it was not found");
}
