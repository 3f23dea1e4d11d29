/* attack:     free of a slot that was never handed out
 * default:    abort: double free of P or abort: invalid free of P
 * hardened:   abort: double free of P or abort: invalid free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    give((char *)take(48) + 10 * 48);
    return go_on("it was not found");
}
