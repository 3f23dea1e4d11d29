/* attack:     realloc of p + 16
 * default:    abort: invalid realloc of P (byte N of slot N of a 48-byte slab)
 * hardened:   abort: invalid realloc of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal */
#include "misuse.h"

int main(void) {
    resize((char *)one_of_some(48) + 16, 100);
    return go_on("it was not found");
}
