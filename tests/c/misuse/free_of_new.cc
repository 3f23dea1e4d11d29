/* attack:     free of what new gave
 * default:    sound: it is the same heap
 * hardened:   sound: it is the same heap
 * certainty:  never: both are given back alike
 * mechanism:  none
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; };
__attribute__((noipa)) static item *make() { return new item; }

int main(void) {
    give(make());
    return go_on("it is the same heap");
}
