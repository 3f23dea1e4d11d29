/* attack:     free_sized, twice
 * default:    abort: double free of P
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  size class of the slot; hardened: exact size */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    free_sized(p, 48);
    free_sized(p, 48);
    return go_on("the size was not looked at");
}
