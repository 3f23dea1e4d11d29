/* attack:     free_aligned_sized by an alignment that the block has not
 * default:    abort: free of P with the wrong size
 * hardened:   abort: free of P with the wrong size
 * certainty:  where such a block would be of another class; hardened: and where the address is no multiple of it
 * mechanism:  size class of the slot */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48);
    free_aligned_sized(p, 4096, 48);
    return go_on("the size was not looked at");
}
