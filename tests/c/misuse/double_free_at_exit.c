/* attack:     double free by a handler of atexit
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

static void *freed;

static void again(void) { give(freed); }

int main(void) {
    freed = one_of_some(48);
    give(freed);
    atexit(again);
    return 0;
}
