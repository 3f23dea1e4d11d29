/* attack:     delete[] of what new gave, of an item with a destructor
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always: no block begins 8 bytes before another
 * mechanism:  multiplication by the reciprocal
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; ~item() { words[0] = 0; } };
__attribute__((noipa)) static item *make() { return new item; }
__attribute__((noipa)) static void drop(item *p) { delete[] p; }

int main(void) {
    one_of_some(48);
    memset(block, 0, sizeof block);
    item *p = make();
    reinterpret_cast<size_t *>(p)[-1] = 0; /* what delete[] takes for the count */
    drop(p);
    return go_on("it was not found");
}
