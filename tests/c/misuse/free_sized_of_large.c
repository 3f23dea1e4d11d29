/* attack:     free_sized of a large block by a small size
 * default:    abort: free of P with the wrong size
 * hardened:   abort: free of P with the wrong size
 * certainty:  default: where the sizes are of different classes; hardened: always
 * mechanism:  size class of the slot; hardened: exact size */
#include "misuse.h"

#ifdef PREFIXED
#define free_sized slabside_free_sized
#define free_aligned_sized slabside_free_aligned_sized
#endif
/* C23's, which the C library may not declare yet. */
extern void free_sized(void *, size_t);
extern void free_aligned_sized(void *, size_t, size_t);

int main(void) {
    void *p = one_of_some(300000);
    free_sized(p, 48);
    return go_on("the size was not looked at");
}
