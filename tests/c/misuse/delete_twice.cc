/* attack:     delete, twice
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; };
__attribute__((noipa)) static item *make() { return new item; }
__attribute__((noipa)) static void drop(item *p) { delete p; }

int main(void) {
    item *p = make();
    drop(p);
    drop(p);
    return go_on("it was not found");
}
