/* attack:     delete of what malloc gave
 * default:    sound: it is the same heap
 * hardened:   sound: it is the same heap
 * certainty:  never: both are given back alike
 * mechanism:  none
 * form:       preloaded */
#include "misuse.h"

struct item { long words[6]; };
__attribute__((noipa)) static void drop(item *p) { delete p; }

int main(void) {
    drop(static_cast<item *>(take(sizeof(item))));
    return go_on("it is the same heap");
}
