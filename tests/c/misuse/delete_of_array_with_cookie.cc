/* attack:     delete of what new[] gave, of items with a destructor
 * default:    abort: invalid free of P (byte 8 of slot N of a N-byte slab)
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  multiplication by the reciprocal
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; ~item() { words[0] = 0; } };
__attribute__((noipa)) static item *make() { return new item[3]; }
__attribute__((noipa)) static void drop(void *p) { operator delete(p); }

int main(void) {
    drop(make());
    return go_on("it was not found");
}
