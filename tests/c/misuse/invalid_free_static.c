/* attack:     free of a static variable
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

static char zero[4096] __attribute__((aligned(4096)));

int main(void) {
    give(zero);
    return go_on("it was not found");
}
