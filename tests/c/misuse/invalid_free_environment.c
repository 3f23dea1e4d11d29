/* attack:     free of a string of the environment
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    setenv("HOME", "/", 0);
    give(environ[0]);
    return go_on("it was not found");
}
