/* attack:     realloc of the second page of a large block
 * default:    abort: invalid realloc of P (byte N of a block of N bytes)
 * hardened:   abort: invalid realloc of P
 * certainty:  always
 * mechanism:  table of large blocks */
#include "misuse.h"

int main(void) {
    resize((char *)one_of_some(300000) + PAGE_BYTES, 100);
    return go_on("it was not found");
}
