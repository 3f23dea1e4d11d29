/* attack:     double free of a block whose owner thread has ended
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

static void *allocate(void *unused) {
    one_of_some(48);
    return unused;
}

int main(void) {
    elsewhere(allocate, NULL);
    give(block[5]);
    give(block[5]);
    return go_on("it was not found");
}
