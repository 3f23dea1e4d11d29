/* attack:     delete by a smaller class without virtual destructor
 * default:    sound: the size was not looked at
 * checked:    abort: free of P with the wrong size
 * hardened:   abort: free of P with the wrong size
 * certainty:  default: never; checked: where the sizes are of different classes; hardened: always
 * mechanism:  checked: size class of the slot; hardened: exact size
 * form:       preloaded */
#include "misuse.h"

struct base { long word; };
struct item : base { long words[60]; };
__attribute__((noipa)) static base *make() { return new item; }
__attribute__((noipa)) static void drop(base *p) { delete p; }

int main(void) {
    drop(make());
    return go_on("the size was not looked at");
}
