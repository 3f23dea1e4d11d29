/* attack:     free_sized of a span by a small size
 * default:    abort: free of P with the wrong size
 * hardened:   abort: free of P with the wrong size
 * certainty:  default: where the sizes are of different classes; hardened: always
 * mechanism:  size class of the slot; hardened: exact size */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(40000);
    free_sized(p, 48);
    return go_on("the size was not looked at");
}
