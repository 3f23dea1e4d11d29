/* attack:     malloc of sizes that wrap when rounded up
 * default:    sound: refused
 * hardened:   sound: refused
 * certainty:  always
 * mechanism:  checked before anything is done */
#include "misuse.h"

int main(void) {
    for (size_t less = 1; less < 10000; less += 15) CHECK(take(opaque_size(SIZE_MAX - less)) == NULL);
    return go_on("refused");
}
