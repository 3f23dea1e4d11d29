/* attack:     double free, after 100,000 other operations
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

/* Frees `p` and works on with sizes that do not take its slot again. */
static void fill_the_hole(void *p) {
    give(p);
    for (size_t i = 0; i < 100000; i++) give(take(64 + i % 5000));
}

int main(void) {
    void *p = one_of_some(48);
    fill_the_hole(p);
    give(p);
    return go_on("it was not found");
}
