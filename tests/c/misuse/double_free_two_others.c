/* attack:     double free by two threads, neither the owner
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    elsewhere(free_it, p);
    elsewhere(free_it, p);
    return go_on("it was not found");
}
