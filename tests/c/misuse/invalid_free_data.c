/* attack:     free of initialised data
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

static char data[64] __attribute__((aligned(16))) = "data";

int main(void) {
    give(data);
    return go_on("it was not found");
}
