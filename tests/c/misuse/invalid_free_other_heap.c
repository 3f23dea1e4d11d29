/* attack:     free of a block of another malloc
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map
 * form:       prefixed */
#include "misuse.h"

extern void *__libc_malloc(size_t); /* ours too, under LD_PRELOAD */

int main(void) {
    one_of_some(48);
    give(__libc_malloc(48));
    return go_on("it was not found");
}
