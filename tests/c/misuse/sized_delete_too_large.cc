/* attack:     sized delete of more than the block has
 * default:    sound: the size was not looked at
 * checked:    abort: free of P with the wrong size
 * hardened:   abort: free of P with the wrong size
 * certainty:  default: never; checked and hardened: always
 * mechanism:  checked: size class of the slot; hardened: exact size
 * form:       preloaded */
#include "misuse.h"

__attribute__((noipa)) static void drop(void *p, size_t size) { operator delete(p, size); }

int main(void) {
    drop(operator new(48), 480);
    return go_on("the size was not looked at");
}
