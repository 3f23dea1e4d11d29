/* attack:     delete of what new[] gave, of items without destructor
 * default:    sound: it is the same heap
 * hardened:   sound: it is the same heap
 * certainty:  never: both are given back alike
 * mechanism:  none
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; };
__attribute__((noipa)) static item *make() { return new item[10]; }
__attribute__((noipa)) static void drop(void *p) { operator delete(p); }

int main(void) {
    drop(make());
    return go_on("it is the same heap");
}
