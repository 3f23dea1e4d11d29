/* attack:     free of an element of a calloc array
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    one_of_some(400);
    give((char *)calloc(10, 40) + 80);
    return go_on("it was not found");
}
