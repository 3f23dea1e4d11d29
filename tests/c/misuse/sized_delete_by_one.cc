/* attack:     sized delete by one byte less, of the same class
 * default:    sound: the size was not looked at
 * hardened:   abort: free of P with the wrong size
 * certainty:  default: never; hardened: always
 * mechanism:  hardened: exact size
 * form:       preloaded */
#include "misuse.h"

__attribute__((noipa)) static void drop(void *p, size_t size) { operator delete(p, size); }

int main(void) {
    drop(operator new(48), 47);
    return go_on("the size was not looked at");
}
