/* attack:     realloc of a mapping of the program's own
 * default:    abort: invalid realloc of P
 * hardened:   abort: invalid realloc of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    resize(p, 100);
    return go_on("it was not found");
}
